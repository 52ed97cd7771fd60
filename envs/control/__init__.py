"""Differentiable control tasks: one environment a file."""
