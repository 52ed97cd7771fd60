"""The rows of `pgtoolkit benchmark`, and what they are measured with."""
