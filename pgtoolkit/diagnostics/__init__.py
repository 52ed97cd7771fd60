"""Measurements of gradients: per trajectory, their variance, signal and significance."""
