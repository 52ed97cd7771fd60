"""Environments whose gradient is known in closed form."""
