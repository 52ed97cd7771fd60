"""Adapters that give a gradient to environments of other libraries."""
