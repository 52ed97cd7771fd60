"""Trials of what can go wrong with runs: interruptions, and what is left after them."""
