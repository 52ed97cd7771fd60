"""Derivatives by autograd and by differences, against a closed form."""

from typing import Any

import torch
from torch import Tensor

from pgtoolkit.envs.checks.gradients import compare
from pgtoolkit.envs.checks.jacobian import Derivatives, derivatives


def differentiate(function: Any, x: Tensor) -> Derivatives:
    """Derivatives of a function of one argument, with steps relative to 1."""
    return derivatives(lambda v, rows: function(v), x, torch.ones(x.shape[1]).double())


def normal(count: int, size: int) -> Tensor:
    """``[count, size]`` standard normal numbers in float64."""
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0)).double()


def test_derivatives_of_a_known_function() -> None:
    """``(a b, sin a)`` has the Jacobian ``((b, a), (cos a, 0))``."""
    x = normal(20, 2)
    found = differentiate(lambda v: torch.stack([v[:, 0] * v[:, 1], v[:, 0].sin()], 1), x)
    a, b = x.unbind(1)
    zero = torch.zeros_like(a)
    exact = torch.stack([torch.stack([b, a], 1), torch.stack([a.cos(), zero], 1)], 1)
    torch.testing.assert_close(found.autograd, exact, rtol=1e-12, atol=1e-12)
    # The rounding of a value of size 1, over the step: 1e-16 / 2.5e-6, some times over.
    torch.testing.assert_close(found.differences, exact, rtol=1e-9, atol=1e-9)
    comparison = compare(found)
    assert not bool((comparison.wrong | comparison.kink | comparison.not_finite).any())
