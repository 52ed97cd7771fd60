"""Autograd compared with differences: kinks, kinds of errors, and float32."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.checks.gradients import check_block, compare
from pgtoolkit.envs.checks.jacobian import Block, Derivatives, derivatives
from pgtoolkit.envs.differentiable import GradientInfo


def differentiate(function: Any, x: Tensor) -> Derivatives:
    """Derivatives of a function of one argument, with steps relative to 1."""
    return derivatives(lambda v, rows: function(v), x, torch.ones(x.shape[1]).double())


def normal(count: int, size: int) -> Tensor:
    """``[count, size]`` standard normal numbers in float64."""
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_at_a_kink_every_slope_between_is_right(slope: float) -> None:
    """``max(x, 0)`` at 0: any derivative from 0 to 1 is as good as another, and 2 is wrong."""
    x = torch.zeros(1, 1).double()
    found = differentiate(lambda v: v.clamp(min=0) * 1.0, x)
    kink = Derivatives(**{**found.__dict__, "autograd": torch.full((1, 1, 1), slope).double()})
    assert not bool(compare(kink).wrong.any())


@pytest.mark.parametrize(
    ("factor", "words"), [(0.0, "cut: "), (-1.0, "wrong sign"), (0.5, "factor of 0.5")]
)
def test_a_wrong_derivative_is_called_by_its_name(factor: float, words: str) -> None:
    """The finding says whether the derivative is 0, has the wrong sign, or is wrong by a factor."""
    found = differentiate(lambda v: v.square() * 0.5, normal(9, 1) + 3)
    wrong = Derivatives(**{**found.__dict__, "autograd": factor * found.autograd})
    block = Block("reward", "state", ["reward"], ["state"], wrong)
    group = torch.zeros(9, dtype=torch.int64)
    (finding,) = check_block(block, group, GradientInfo())
    assert finding.status == "fault" and words in finding.finding
    (finding,) = check_block(block, group, GradientInfo(reward="approximate"))
    assert finding.status == "warning"
    (finding,) = check_block(block, group, GradientInfo(reward="none"))
    assert finding.status == "pass"


def test_single_precision_is_seen_and_allowed_for() -> None:
    """A function that rounds to float32 agrees with its derivative all the same."""
    found = differentiate(lambda v: v.float().sin().double(), normal(30, 1))
    assert bool(found.single.all())
    assert not bool(compare(found).wrong.any())
