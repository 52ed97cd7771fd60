"""The quantile of a beta distribution and its derivatives, in float64 NumPy.

Everything is computed in the smaller tail and from the smaller of ``x`` and ``1 - x``, so that
neither ``x`` near 1 nor a rank near 1 loses digits.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TINY = np.finfo(np.float64).tiny

LARGEST_NOISE = 35.0
"""Beyond it a normal tail probability (1e-268 here) soon rounds to 0."""

STENCIL = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
"""Central differences of eighth order for a first derivative, at 1, 2, 3, 4 steps."""

STEP = 0.04
"""In the logarithm of a shape parameter, or in standard deviations if that is less. Against 100
digits the derivatives then are right to 3e-12, relative: larger steps truncate, smaller round."""


def beta_quantile(noise: Array, alpha: Array, beta: Array) -> tuple[Array, Array]:
    """``x`` and ``1 - x`` with ``I_x(alpha, beta) = Phi(noise)``, the beta of that rank.

    Both have all their digits; of the two, the one that is near 1 may be 1.
    """
    from scipy import special

    below, p, q = _orient(noise, alpha, beta)
    rank = special.ndtr(-np.abs(noise).clip(max=LARGEST_NOISE))
    x, y = special.betaincinv(p, q, rank), special.betainccinv(q, p, rank)
    return np.where(below, x, y).clip(TINY, 1), np.where(below, y, x).clip(TINY, 1)


def beta_quantile_derivatives(
    noise: Array, alpha: Array, beta: Array, x: Array, y: Array
) -> tuple[Array, Array]:
    """``dx/dalpha`` and ``dx/dbeta`` at fixed noise: ``-(dI_x by the parameter) / p(x)``.

    ``d log I_x`` is an eighth-order central difference in the parameter's logarithm.

    Args:
        noise: standard normal.
        alpha: shape.
        beta: shape.
        x: from :func:`beta_quantile`.
        y: ``1 - x``, from there.
    """
    from scipy import special

    below, p, q = _orient(noise, alpha, beta)
    x, y = np.where(below, x, y), np.where(below, y, x)
    nearer = x < y
    log_small, log_large = np.log(np.minimum(x, y)), np.log1p(-np.minimum(x, y))
    log_x, log_y = np.where(nearer, log_small, log_large), np.where(nearer, log_large, log_small)
    log_density = (p - 1) * log_x + (q - 1) * log_y - special.betaln(p, q)
    step = STEP * np.minimum(1, np.sqrt((p + q) / (p * q)))
    by_p, by_q = np.zeros_like(x), np.zeros_like(x)
    for k, weight in enumerate(STENCIL, start=1):
        up, down = np.exp(k * step), np.exp(-k * step)
        by_p += weight * (log_rank(p * up, q, x, y) - log_rank(p * down, q, x, y))
        by_q += weight * (log_rank(p, q * up, x, y) - log_rank(p, q * down, x, y))
    slope = -np.exp(log_rank(p, q, x, y) - log_density) / step
    by_p, by_q = slope * by_p / p, slope * by_q / q
    return np.where(below, by_p, -by_q), np.where(below, by_q, -by_p)


def _orient(noise: Array, alpha: Array, beta: Array) -> tuple[NDArray[np.bool_], Array, Array]:
    """Above the median, ``1 - x`` is looked for instead: beta distributed with shapes swapped."""
    below = noise <= 0
    return below, np.where(below, alpha, beta), np.where(below, beta, alpha)


def log_rank(p: Array, q: Array, x: Array, y: Array) -> Array:
    """``log I_x(p, q)``, from whichever of ``x`` and ``y = 1 - x`` is smaller."""
    from scipy import special

    nearer, rank = x < y, np.empty_like(x)
    special.betainc(p, q, x, out=rank, where=nearer)
    special.betaincc(q, p, y, out=rank, where=~nearer)
    result: Array = np.log(rank.clip(TINY))
    return result
