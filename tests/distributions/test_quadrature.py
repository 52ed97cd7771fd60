"""Gauss-Hermite nodes and weights against moments of the normal distribution."""

import math

import pytest
import torch

from pgtoolkit.distributions.quadrature import gauss_hermite
from pgtoolkit.errors import RequestError


@pytest.mark.parametrize("size", [1, 2, 3])
def test_moments_of_a_standard_normal(size: int) -> None:
    """E eps = 0, E eps^2 = 1, E eps^4 = 3; dimensions are independent; weights add up to one."""
    noise, weight = gauss_hermite(5, size)
    assert noise.shape == (5**size, size) and weight.shape == (5**size,)
    assert float(weight.sum()) == pytest.approx(1, rel=1e-14)
    for power, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert (weight @ noise**power).tolist() == pytest.approx([expected] * size, abs=1e-12)
    if size > 1:
        assert float(weight @ (noise[:, 0] ** 2 * noise[:, 1] ** 4)) == pytest.approx(3, rel=1e-12)


def test_a_function_that_is_no_polynomial() -> None:
    """For a standard normal, ``E[cos(eps)] = exp(-1/2)``."""
    noise, weight = gauss_hermite(40)
    assert float(weight @ torch.cos(noise[:, 0])) == pytest.approx(math.exp(-0.5), rel=1e-14)


@pytest.mark.parametrize(("nodes", "size"), [(0, 1), (3, 0), (100, 4), (371, 1)])
def test_grids_that_cannot_be_are_refused(nodes: int, size: int) -> None:
    with pytest.raises(RequestError, match="nodes in"):
        gauss_hermite(nodes, size)
