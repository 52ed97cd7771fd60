"""Parts of `pgtoolkit variance`."""
