"""The linear-quadratic-Gaussian problem with its exact gradients and their variances."""
