"""Rows of the tables in the documentation."""
