"""The checks behind `pgtoolkit check-env`, one subject a file."""
