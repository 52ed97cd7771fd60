"""Distributions over actions as immutable values; one family a file."""
