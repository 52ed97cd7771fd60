"""The median of a beta distribution in torch operations alone."""

import math

import numpy as np
import torch
from scipy import special

from pgtoolkit.distributions.beta_median import beta_median
from pgtoolkit.distributions.beta_quantile import beta_quantile


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    """Shape parameters from 1 to 1e6, each with each."""
    shape = torch.logspace(0, 6, 25, dtype=torch.float64)
    alpha, beta = torch.meshgrid(shape, shape, indexing="ij")
    return alpha.flatten(), beta.flatten()


def test_it_is_scipys_quantile_at_one_half() -> None:
    """SciPy's own error is 3e-12 at ``alpha = beta = 1.8``, where the median is 1/2."""
    alpha, beta = grid()
    expected, _ = beta_quantile(np.zeros(len(alpha)), alpha.numpy(), beta.numpy())
    np.testing.assert_allclose(beta_median(alpha, beta).numpy(), expected, rtol=1e-11)


def test_half_of_the_probability_is_below() -> None:
    """SciPy's distribution function; its slope is up to 1e3 times the median."""
    alpha, beta = grid()
    below = special.betainc(alpha.numpy(), beta.numpy(), beta_median(alpha, beta).numpy())
    np.testing.assert_allclose(below, 0.5, atol=1e-9)


def test_closed_forms() -> None:
    """``Beta(1, b)``: ``1 - 2^(-1/b)``; ``Beta(a, 1)``: ``2^(-1/a)``; symmetric: 1/2."""
    for x in (1.0, 1.5, 7.0, 300.0):
        one, other = (torch.tensor([shape], dtype=torch.float64) for shape in (1.0, x))
        found = [beta_median(*pair).item() for pair in ((one, other), (other, one), (other, other))]
        expected = [-math.expm1(-math.log(2) / x), 2 ** (-1 / x), 0.5]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_shape_is_that_of_the_parameters() -> None:
    shape = torch.full((2, 3, 4), 2.5)
    found = beta_median(shape, shape + 1)
    assert found.shape == (2, 3, 4) and found.dtype == torch.float64
    assert beta_median(shape[:0], shape[:0]).shape == (0, 3, 4)
