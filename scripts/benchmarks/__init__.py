"""The benchmarks of ``pgtoolkit benchmark``, with their timing and report."""
