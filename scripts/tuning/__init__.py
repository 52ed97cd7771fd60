"""The parts of `pgtoolkit tune`: settings and their ranges, the study, trials, and results."""
