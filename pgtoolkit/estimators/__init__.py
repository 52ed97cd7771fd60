"""Gradient estimators, the returns and baselines that they weigh by, and their study."""
