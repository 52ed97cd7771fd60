"""The cosine of a linear recursion's end under Gaussian actions: gradient and variances, exact."""

import math

from pgtoolkit.envs.exact import ExactGradient, exact_moments


def cosine_moments(
    rho: float, kappa: float, s0: float, horizon: int, mean: float, sigma: float
) -> ExactGradient:
    """Of ``cos(kappa s_H)`` under ``s' = rho s + u``, ``u ~ N(mean, sigma^2)``, ``H`` steps.

    With ``c = sum_t rho^t``, ``w = sum_t rho^(2t)``, ``m = rho^H s0 + mean c``, ``d = kappa^2
    sigma^2 w``, ``J = exp(-d/2) cos(kappa m)`` and ``q = exp(-2d) cos(2 kappa m)``::

                   by mean                             by sigma
        g          -kappa c exp(-d/2) sin(kappa m)     -kappa^2 sigma w J
        E[RP^2]    kappa^2 c^2 (1 - q) / 2             kappa^2 w (1 - (1 - 4d) q) / 2
        E[f^2 S^2] (H + (H - 4b) q) / (2 sigma^2)      (H + (H - 8d + 8d^2) q) / sigma^2
        E[f S^2]   (H - b) J / sigma^2                 (2H - 4d + d^2) J / sigma^2

    with ``b = (kappa sigma c)^2``. Each is some ``E[p(eps) cos(x + y'eps)]`` with a polynomial
    ``p``, and that is ``exp(-|y|^2 / 2)`` times the real part of ``exp(ix) E[p(eps + iy)]``.
    """
    c, w = power_sum(rho, horizon), power_sum(rho * rho, horizon)
    m, d = rho**horizon * s0 + mean * c, kappa * kappa * sigma * sigma * w
    b, damping = kappa * kappa * sigma * sigma * c * c, math.exp(-d / 2)
    J, q = damping * math.cos(kappa * m), math.exp(-2 * d) * math.cos(2 * kappa * m)
    by_mean, by_sigma = -kappa * c * damping * math.sin(kappa * m), -kappa * kappa * sigma * w * J
    precision, n = 1 / (sigma * sigma), horizon
    return ExactGradient(
        mean=exact_moments(
            gradient=by_mean,
            pathwise_mean=by_mean,
            pathwise_square=kappa * kappa * c * c * (1 - q) / 2,
            score_square=(n + (n - 4 * b) * q) * precision / 2,
            product=(n - b) * J * precision,
            fisher=n * precision,
        ),
        sigma=exact_moments(
            gradient=by_sigma,
            pathwise_mean=by_sigma,
            pathwise_square=kappa * kappa * w * (1 - (1 - 4 * d) * q) / 2,
            score_square=(n + (n - 8 * d + 8 * d * d) * q) * precision,
            product=(2 * n - 4 * d + d * d) * J * precision,
            fisher=2 * n * precision,
        ),
    )


def power_sum(ratio: float, count: int) -> float:
    """``1 + ratio + ... + ratio^(count-1)``: term by term, which is right at ratio 1 as well."""
    return math.fsum(ratio**t for t in range(count))
