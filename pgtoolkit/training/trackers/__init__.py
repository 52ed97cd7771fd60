"""Experiment trackers that get the scalars of a run beside TensorBoard."""
