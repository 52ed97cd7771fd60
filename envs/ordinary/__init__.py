"""Ordinary Gymnasium environments in training: their state, saved and put back."""
