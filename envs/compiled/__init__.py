"""Rollouts whose step of policy and environment is traced once and compiled."""
