"""Rollouts: a policy and environments in, windows, transitions and episodes out."""
