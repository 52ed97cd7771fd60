"""Is a squared norm more than chance makes of zero? A z that holds for few degrees of freedom."""

import torch
from torch import Tensor


def significance(
    signal: Tensor, variance: Tensor, squared_covariance: Tensor, num_trajectories: int
) -> Tensor:
    """How far, on the scale of a normal variable, ``U`` stands above what chance makes of 0.

    Without a signal, ``U`` in units of its standard deviation ``sd = sqrt(2 Q / (N (N - 1)))`` is a
    sum of squares less its mean: chi-squared of ``nu = V^2 / Q`` degrees of freedom (Satterthwaite
    1946), and normal for large ``nu`` only. The cube root of ``X = nu + sqrt(2 nu) U / sd`` is
    normal for all (Wilson and Hilferty 1931):
    ``z = ((X / nu)^(1/3) - 1 + 2 / (9 nu)) / sqrt(2 / (9 nu))``. With ``nu = 1`` chance takes
    ``U / sd`` above 3 in 2 % of all cases, and z in about one of a thousand.

    What is left is skewness: with few trajectories and a heavy tail z exceeds 3 more often than a
    normal variable does (``docs/estimators.md`` has measured rates). 0 if all gradients are 0.

    Args:
        signal: ``U``, any shape; so are the next two.
        variance: ``V``.
        squared_covariance: ``Q``; ``nu`` is kept within 1 and ``(N - 1)^2``.
        num_trajectories: ``N``.
    """
    n = num_trajectories
    nu = effective_dimension(variance, squared_covariance, n)
    ratio = 1 + (2 / nu).sqrt() * standardised(signal, variance.square() / nu, n)
    root = ratio.sign() * ratio.abs() ** (1 / 3)
    z = (root - 1 + 2 / (9 * nu)) / (2 / (9 * nu)).sqrt()
    return torch.where((variance == 0) & (signal == 0), 0.0, z)


def effective_dimension(variance: Tensor, squared_covariance: Tensor, n: int) -> Tensor:
    """``V^2 / Q``, kept within 1 and ``(N - 1)^2``; 1 where nothing varies.

    It may well exceed ``N``, the dimension that a sample spans; the limit is for a ``Q`` that comes
    out at 0 or below by chance.
    """
    square = variance.square()
    possible = squared_covariance.clamp_min(0).maximum(square / (n - 1) ** 2).minimum(square)
    return torch.where(square > 0, square / possible, 1.0)


def standardised(signal: Tensor, squared_covariance: Tensor, n: int) -> Tensor:
    """``U / sqrt(2 Q / (N (N - 1)))`` (Chen and Qin 2010); 0 if the signal is 0."""
    spread = (2 * squared_covariance / (n * (n - 1))).sqrt()
    return torch.where(signal == 0, 0.0, signal / spread)
