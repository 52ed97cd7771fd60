"""Learners: a policy or a value function with its step rule."""
