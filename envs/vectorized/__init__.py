"""Vector environments of ordinary environments, in this process or in workers."""
