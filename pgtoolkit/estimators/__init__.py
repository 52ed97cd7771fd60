"""Gradient estimators, the returns and baselines in their weights, and statistics of them."""
