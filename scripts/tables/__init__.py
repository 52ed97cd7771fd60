"""Measured rows of the tables in the documentation."""
