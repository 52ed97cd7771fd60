"""Policies made of normaliser, hidden layers and a head; one family of heads a file."""
