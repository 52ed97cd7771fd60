"""Adapters: environments of other libraries as differentiable environments."""
