"""Faults of a run: recorded, taken again, and explained."""
