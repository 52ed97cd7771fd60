"""Wrappers of differentiable environments; each changes one thing."""
