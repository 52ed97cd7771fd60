"""The checks of `pgtoolkit check-env`: one kind of mistake a file."""
