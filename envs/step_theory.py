"""A step under a Gaussian action, abrupt or smooth: gradient and variances, exact."""

import math

from pgtoolkit.envs.exact import ExactGradient, Phi, exact_moments, phi


def step_moments(m: float, s: float, nu: float) -> ExactGradient:
    """Of ``f(x) = Phi(x / nu)``, or ``1[x > 0]`` where ``nu`` is 0, under ``x ~ N(m, s^2)``.

    With ``F(m) = E f``, ``M(m) = E f^2`` and ``G(m) = E f'^2``, derivatives by ``m`` give every
    moment, because ``E[h(x) He_n(eps)] = s^n d^n/dm^n E[h(x)]`` (Stein)::

                   by mean                by sigma
        g          F'                     s F''
        E[RP^2]    G                      G + s^2 G''
        E[f^2 S^2] (M + s^2 M'') / s^2    (2 M + 4 s^2 M'' + s^4 M'''') / s^2

    and ``E[f S^2]`` as ``E[f^2 S^2]`` with ``F`` for ``M``.
    """
    F, M = _even_derivatives_of_mean(m, s, nu), _even_derivatives_of_square(m, s, nu)
    w = math.hypot(s, nu)
    by_mean, by_sigma = phi(m / w) / w, s * F[1]
    slope, curvature = _squared_slope(m, s, nu)
    smooth = nu > 0
    return ExactGradient(
        mean=exact_moments(
            gradient=by_mean,
            pathwise_mean=by_mean if smooth else 0.0,
            pathwise_square=slope,
            score_square=(M[0] + s**2 * M[1]) / s**2,
            product=(F[0] + s**2 * F[1]) / s**2,
            fisher=1 / s**2,
        ),
        sigma=exact_moments(
            gradient=by_sigma,
            pathwise_mean=by_sigma if smooth else 0.0,
            pathwise_square=slope + s**2 * curvature,
            score_square=(2 * M[0] + 4 * s**2 * M[1] + s**4 * M[2]) / s**2,
            product=(2 * F[0] + 4 * s**2 * F[1] + s**4 * F[2]) / s**2,
            fisher=2 / s**2,
        ),
    )


def _even_derivatives_of_mean(m: float, s: float, nu: float) -> tuple[float, float, float]:
    """``F = Phi(h)``, ``h = m / w``, ``w^2 = s^2 + nu^2``, and its second and fourth derivative."""
    w = math.hypot(s, nu)
    h = m / w
    return Phi(h), -h * phi(h) / w**2, (3 * h - h**3) * phi(h) / w**4


def _even_derivatives_of_square(m: float, s: float, nu: float) -> tuple[float, float, float]:
    """``M = Phi(h) - 2 T(h, c)`` with Owen's T, and its second and fourth derivative.

    ``E Phi(x / nu)^2`` is the probability that two normals, of correlation ``s^2 / w^2``, are both
    below ``h``; ``c = nu / sqrt(2 s^2 + nu^2)``. Its first derivative is ``2 A / w`` with ``A =
    phi(h) Phi(c h)``; the rest follows with ``B = phi(h) phi(c h)``.
    """
    from scipy.special import owens_t

    w, c = math.hypot(s, nu), nu / math.sqrt(2 * s**2 + nu**2)
    h = m / w
    A, B = phi(h) * Phi(c * h), phi(h) * phi(c * h)
    first = -h * A + c * B
    third = (h**2 - 1) * first + 2 * h * A - c * (2 + c**2) * (1 - (1 + c**2) * h**2) * B
    return Phi(h) - 2 * float(owens_t(h, c)), 2 * first / w**2, 2 * third / w**4


def _squared_slope(m: float, s: float, nu: float) -> tuple[float, float]:
    """``G = E[f'^2] = N(m; 0, v) / (2 nu sqrt(pi))``, ``v = s^2 + nu^2 / 2``, and ``G''``."""
    if nu == 0:
        return 0.0, 0.0
    v = s**2 + nu**2 / 2
    G = phi(m / math.sqrt(v)) / math.sqrt(v) / (2 * nu * math.sqrt(math.pi))
    return G, G * (m**2 / v - 1) / v
