"""Parts of ``pgtoolkit export``: file formats, their metadata, and the check of what they hold."""
