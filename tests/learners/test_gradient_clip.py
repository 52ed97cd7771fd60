"""Clipping and schedules, in numbers."""

import pytest
import torch
from torch import nn

from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.gradient_clip import (
    clip_gradient,
    require_finite_gradient,
    scheduled_learning_rate,
    set_learning_rate,
)


def with_gradients(*values: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(len(value))) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return parameters


def test_a_long_gradient_is_scaled_to_the_norm_over_all_parameters() -> None:
    """(3, 0) and (4) have norm 5: a fifth of each, in the same direction."""
    one, two = with_gradients([3.0, 0.0], [4.0])
    assert float(clip_gradient([one, two], 1.0)) == pytest.approx(5)
    assert one.grad is not None and two.grad is not None
    assert one.grad.tolist() == pytest.approx([0.6, 0], rel=1e-5)
    assert two.grad.tolist() == pytest.approx([0.8], rel=1e-5)


def test_a_short_gradient_is_left_as_it_is() -> None:
    """To the last bit; the norm is returned all the same."""
    (one,) = with_gradients([0.3, 0.4])
    assert float(clip_gradient([one], 1.0)) == pytest.approx(0.5)
    assert one.grad is not None
    assert torch.equal(one.grad, torch.tensor([0.3, 0.4]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_named(bad: float) -> None:
    """A parameter without a gradient is none of its business."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    require_finite_gradient(module)
    module[1].bias.grad = torch.tensor([0.0, bad])
    with pytest.raises(NonFiniteError, match=r"gradient of 1\.bias is not finite"):
        require_finite_gradient(module)


def test_a_linear_schedule_falls_to_a_hundredth_and_no_further() -> None:
    """At the start, in the middle, at the end and beyond it."""
    found = [scheduled_learning_rate(0.2, "linear", p) for p in (0.0, 0.5, 0.99, 1.0, 3.0)]
    assert found == pytest.approx([0.2, 0.1, 0.002, 0.002, 0.002])


def test_a_constant_schedule_stays() -> None:
    """Exactly."""
    assert [scheduled_learning_rate(0.2, "constant", p) for p in (0.0, 0.5, 2.0)] == [0.2] * 3


def test_the_learning_rate_is_that_of_every_group() -> None:
    """And the optimiser uses it: one step of plain descent moves by it."""
    one, two = with_gradients([1.0], [1.0])
    optimizer = torch.optim.SGD([{"params": [one], "lr": 1.0}, {"params": [two], "lr": 2.0}])
    set_learning_rate(optimizer, 0.25)
    optimizer.step()
    assert (float(one.detach()), float(two.detach())) == (-0.25, -0.25)
