"""The interface of a simulator, and derivatives by finite differences of its steps."""
