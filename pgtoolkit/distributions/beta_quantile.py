"""The quantile of a beta distribution and its derivatives, in float64 NumPy.

All is computed in the smaller of the two tails and from the smaller of ``x`` and ``1 - x``: neither
an ``x`` near 1 nor a probability near 1 loses digits.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TINY = np.finfo(np.float64).tiny

MAX_NOISE = 35.0
"""Largest absolute noise. Its normal tail probability is 1e-268; larger noise soon rounds to 0."""

DIFFERENCE_WEIGHTS = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
"""Weights, at 1 to 4 steps, of the eighth-order central difference for a first derivative."""

DIFFERENCE_STEP = 0.04
"""Step in the logarithm of a shape parameter; in standard deviations of ``logit(x)`` if that is
less. The relative error of the derivatives is then at most 3e-12, by comparison with 100 digits. A
larger step adds truncation error, a smaller one rounding error."""


def beta_quantile(noise: Array, alpha: Array, beta: Array) -> tuple[Array, Array]:
    """``x`` and ``1 - x`` such that ``I_x(alpha, beta) = Phi(noise)``.

    Each is accurate by itself: ``1 - x`` is not computed from ``x``. The larger one may round to 1.
    """
    from scipy import special

    lower, p, q = _orient(noise, alpha, beta)
    rank = special.ndtr(-np.abs(noise).clip(max=MAX_NOISE))
    x, y = special.betaincinv(p, q, rank), special.betainccinv(q, p, rank)
    return np.where(lower, x, y).clip(TINY, 1), np.where(lower, y, x).clip(TINY, 1)


def beta_quantile_derivatives(
    noise: Array, alpha: Array, beta: Array, x: Array, y: Array
) -> tuple[Array, Array]:
    """``dx/dalpha`` and ``dx/dbeta`` at fixed noise: ``-(dI_x by the parameter) / p(x)``.

    ``d log I_x`` is an eighth-order central difference in the logarithm of the parameter.

    Args:
        noise: standard normal.
        alpha: first shape parameter.
        beta: second shape parameter.
        x: the quantile, the first result of :func:`beta_quantile`.
        y: ``1 - x``, the second result of :func:`beta_quantile`.
    """
    from scipy import special

    lower, p, q = _orient(noise, alpha, beta)
    x, y = np.where(lower, x, y), np.where(lower, y, x)
    x_smaller = x < y
    log_small, log_large = np.log(np.minimum(x, y)), np.log1p(-np.minimum(x, y))
    log_x = np.where(x_smaller, log_small, log_large)
    log_y = np.where(x_smaller, log_large, log_small)
    log_density = (p - 1) * log_x + (q - 1) * log_y - special.betaln(p, q)
    step = DIFFERENCE_STEP * np.minimum(1, np.sqrt((p + q) / (p * q)))
    by_p, by_q = np.zeros_like(x), np.zeros_like(x)
    for k, weight in enumerate(DIFFERENCE_WEIGHTS, start=1):
        up, down = np.exp(k * step), np.exp(-k * step)
        by_p += weight * (log_cdf(p * up, q, x, y) - log_cdf(p * down, q, x, y))
        by_q += weight * (log_cdf(p, q * up, x, y) - log_cdf(p, q * down, x, y))
    slope = -np.exp(log_cdf(p, q, x, y) - log_density) / step
    by_p, by_q = slope * by_p / p, slope * by_q / q
    return np.where(lower, by_p, -by_q), np.where(lower, by_q, -by_p)


def _orient(noise: Array, alpha: Array, beta: Array) -> tuple[NDArray[np.bool_], Array, Array]:
    """Whether the noise is in the lower half, and the shape parameters of the smaller tail.

    In the upper half, ``1 - x`` is computed in place of ``x``: it is beta distributed with the
    parameters swapped.
    """
    lower = noise <= 0
    return lower, np.where(lower, alpha, beta), np.where(lower, beta, alpha)


def log_cdf(p: Array, q: Array, x: Array, y: Array) -> Array:
    """``log I_x(p, q)``, computed from the smaller of ``x`` and ``y = 1 - x``."""
    from scipy import special

    x_smaller, cdf = x < y, np.empty_like(x)
    special.betainc(p, q, x, out=cdf, where=x_smaller)
    special.betaincc(q, p, y, out=cdf, where=~x_smaller)
    result: Array = np.log(cdf.clip(TINY))
    return result
