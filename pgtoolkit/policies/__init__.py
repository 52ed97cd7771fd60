"""Policies: normaliser, torso and a head; one family of heads a file."""
