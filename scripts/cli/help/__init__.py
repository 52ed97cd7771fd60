"""The text of ``--help``: examples, options and their order, and tables of names."""
