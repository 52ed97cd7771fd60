"""Gymnasium environments whose state can be saved and restored."""
