import math

import numpy as np
import pytest
from numpy.polynomial import Polynomial

from pgtoolkit.envs.analytic.exact import (
    Phi,
    exact_moments,
    phi,
    polynomial_mean,
)


def test_phi_is_the_derivative_of_Phi() -> None:
    for x in (-3.0, -0.4, 0.0, 1.7):
        assert (Phi(x + 1e-5) - Phi(x - 1e-5)) / 2e-5 == pytest.approx(phi(x), rel=1e-8)
    assert Phi(0.0) == 0.5 and Phi(1.959963984540054) == pytest.approx(0.975)
    assert Phi(-30.0) == pytest.approx(4.906713927148187e-198)  # no cancellation in the tail


@pytest.mark.parametrize("above", [-math.inf, -1.3, 0.0, 0.7])
def test_the_mean_of_a_polynomial_against_quadrature(above: float) -> None:
    """Degree 8; Gauss-Legendre on short panels."""
    polynomial = Polynomial(np.random.default_rng(0).normal(size=9))
    breaks = np.linspace(max(above, -14), 14, 100)
    x, w = np.polynomial.legendre.leggauss(20)
    half = np.diff(breaks)[:, None] / 2
    eps = breaks[:-1, None] + half + half * x
    expected = (half * w * polynomial(eps) * np.exp(-(eps**2) / 2)).sum() / math.sqrt(2 * math.pi)
    assert polynomial_mean(polynomial, above) == pytest.approx(expected, rel=1e-12)


def test_constants_and_lines() -> None:
    """E[1] = 1, E[eps] = 0, E[3 + 2 eps; eps > 0] = 3/2 + 2 phi(0)."""
    assert polynomial_mean(Polynomial([1.0])) == 1.0
    assert polynomial_mean(Polynomial([0.0, 1.0])) == 0.0
    expected = 1.5 + 2 / math.sqrt(2 * math.pi)
    assert polynomial_mean(Polynomial([3.0, 2.0]), 0.0) == pytest.approx(expected)


def test_the_variance_of_any_baseline() -> None:
    """Var_b = Var_0 - 2 b B + b^2 I, least at b = B / I.

    Here Var_0 = 30 - 2^2 = 26, Var_1 = 26 - 12 + 2 = 16, Var_3 = 26 - 36 + 18 = 8; pathwise 5 - 1.
    """
    moments = exact_moments(
        gradient=2, pathwise_mean=1, pathwise_square=5, score_square=30, product=6, fisher=2
    )
    assert moments.pathwise_bias == -1 and moments.pathwise_variance == 4
    assert moments.score_function_variance == moments.baseline_variance(0) == 26
    assert moments.optimal_baseline == 3 and moments.optimal_baseline_variance == 8
    assert moments.baseline_variance(3) == 8 and moments.baseline_variance(1) == 16


def test_rounding_makes_no_variance_negative() -> None:
    """The score function of a constant with itself as the baseline has variance 0."""
    moments = exact_moments(
        gradient=0.3,
        pathwise_mean=0.3,
        pathwise_square=0.09 - 1e-17,
        score_square=0.09 - 1e-17,
        product=1e-9,
        fisher=1.0,
    )
    assert moments.pathwise_variance == moments.score_function_variance == 0.0
    assert moments.optimal_baseline_variance == 0.0
