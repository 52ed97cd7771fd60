"""The protocol of a simulator, and gradients by finite differences of its steps."""
