"""A z for a squared norm under the hypothesis that it is zero, valid for few degrees of freedom."""

import torch
from torch import Tensor


def significance(
    signal: Tensor, variance: Tensor, squared_covariance: Tensor, num_trajectories: int
) -> Tensor:
    """The z of a signal ``U`` under the hypothesis of no signal, on a normal scale.

    Without a signal, ``U`` over its standard deviation ``sd = sqrt(2 Q / (N (N - 1)))`` is a
    centred chi-squared variable of ``nu = V^2 / Q`` degrees of freedom (Satterthwaite 1946), which
    is normal only for large ``nu``. The cube root of ``X = nu + sqrt(2 nu) U / sd`` is about normal
    for every ``nu`` (Wilson and Hilferty 1931), which gives
    ``z = ((X / nu)^(1/3) - 1 + 2 / (9 nu)) / sqrt(2 / (9 nu))``. At ``nu = 1`` and without a
    signal, ``U / sd`` exceeds 3 in 2 % of all cases, and z in about 0.1 %.

    Skewness of the gradients is not corrected for: with few trajectories and a heavy tail, z
    exceeds 3 more often than a normal variable does (rates are in ``docs/estimators.md``). z is 0
    if all gradients are 0.

    Args:
        signal: ``U``, any shape; so are the next two.
        variance: ``V``.
        squared_covariance: ``Q``; ``nu`` is clamped to [1, ``(N - 1)^2``].
        num_trajectories: ``N``.
    """
    n = num_trajectories
    nu = effective_dimension(variance, squared_covariance, n)
    ratio = 1 + (2 / nu).sqrt() * standardised(signal, variance.square() / nu, n)
    root = ratio.sign() * ratio.abs() ** (1 / 3)
    z = (root - 1 + 2 / (9 * nu)) / (2 / (9 * nu)).sqrt()
    return torch.where((variance == 0) & (signal == 0), 0.0, z)


def detectable_signal(
    variance: Tensor, squared_covariance: Tensor, num_trajectories: int, z: float
) -> Tensor:
    """The signal whose :func:`significance` is ``z``: a smaller one would not have been seen.

    The inverse of that formula, ``U = sd sqrt(nu / 2) ((1 - 2 / (9 nu) + z sqrt(2 / (9 nu)))^3 -
    1)``. The arguments are as there.
    """
    nu = effective_dimension(variance, squared_covariance, num_trajectories)
    n, share = num_trajectories, 2 / (9 * nu)
    deviation = (2 * variance.square() / nu / (n * (n - 1))).sqrt()
    return deviation * (nu / 2).sqrt() * ((1 - share + z * share.sqrt()) ** 3 - 1)


def effective_dimension(variance: Tensor, squared_covariance: Tensor, n: int) -> Tensor:
    """``V^2 / Q``, clamped to [1, ``(N - 1)^2``]; 1 where the variance is 0.

    It may exceed ``N``, the dimension of the space that ``N`` gradients span. The upper limit is
    for estimates of ``Q`` that happen to be 0 or negative.
    """
    square = variance.square()
    possible = squared_covariance.clamp_min(0).maximum(square / (n - 1) ** 2).minimum(square)
    return torch.where(square > 0, square / possible, 1.0)


def standardised(signal: Tensor, squared_covariance: Tensor, n: int) -> Tensor:
    """``U / sqrt(2 Q / (N (N - 1)))`` (Chen and Qin 2010); 0 if the signal is 0."""
    deviation = (2 * squared_covariance / (n * (n - 1))).sqrt()
    return torch.where(signal == 0, 0.0, signal / deviation)
