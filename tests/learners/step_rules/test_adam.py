"""Tests of Adam's clipping and learning-rate schedule against known numbers."""

import copy

import pytest
import torch
from torch import nn

from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.step_rules.adam import Adam, scheduled, set_learning_rate


def layer(scale: float = 1.0) -> nn.Linear:
    """A linear layer with known parameters and gradients."""
    found = nn.Linear(2, 1)
    with torch.no_grad():
        found.weight.copy_(torch.tensor([[0.5, -0.25]]))
        found.bias.zero_()
    found.weight.grad = scale * torch.tensor([[3.0, 0.0]])
    found.bias.grad = scale * torch.tensor([4.0])
    return found


def test_a_step_is_that_of_torch_after_a_clip() -> None:
    """Gradient (3, 0, 4) has norm 5 and is clipped to 1."""
    module, plain = layer(), layer()
    metrics = Adam(module, 0.1, betas=(0.7, 0.9), max_grad_norm=1.0).step(module)
    optimizer = torch.optim.Adam(plain.parameters(), 0.1, betas=(0.7, 0.9))
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
    optimizer.step()
    torch.testing.assert_close(module.weight, plain.weight)
    torch.testing.assert_close(module.bias, plain.bias)
    assert float(metrics["train/gradient_clipped"]) == 1


def test_the_learning_rate_follows_the_progress() -> None:
    """After three quarters of the run a quarter of the learning rate is left."""
    module = layer()
    rule = Adam(module, 0.2, schedule="linear", progress=lambda: 0.75)
    metrics = rule.step(module)
    assert float(metrics["train/learning_rate"]) == pytest.approx(0.05)
    # Adam's first step is one learning rate long, whatever the gradient.
    assert float(module.weight.detach()[0, 0]) == pytest.approx(0.5 - 0.05)
    assert float(metrics["train/gradient_clipped"]) == 0


def test_a_gradient_that_is_not_finite_takes_no_step() -> None:
    module = layer(float("nan"))
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(NonFiniteError, match="gradient of weight"):
        Adam(module, 0.1).step(module)
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())


def test_a_saved_rule_goes_on_exactly() -> None:
    one, other = layer(), layer()
    first, second = Adam(one, 0.1), Adam(other, 0.1)
    first.step(one)
    other.load_state_dict(one.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for module, rule in ((one, first), (other, second)):
        module.weight.grad, module.bias.grad = torch.ones(1, 2), torch.ones(1)
        rule.step(module)
    assert torch.equal(one.weight, other.weight)


def test_a_linear_schedule_falls_to_a_hundredth_and_no_further() -> None:
    """Tested at the start, in the middle, near the end, at the end and beyond it."""
    found = [scheduled(0.2, "linear", p) for p in (0.0, 0.5, 0.99, 1.0, 3.0)]
    assert found == pytest.approx([0.2, 0.1, 0.002, 0.002, 0.002])


def test_a_constant_schedule_stays() -> None:
    """A constant schedule keeps the learning rate exactly, at any progress."""
    assert [scheduled(0.2, "constant", p) for p in (0.0, 0.5, 2.0)] == [0.2] * 3


def test_the_learning_rate_is_that_of_every_group() -> None:
    """The rate replaces that of every group: one step of plain descent moves by it."""
    one, two = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    one.grad = two.grad = torch.ones(1)
    optimizer = torch.optim.SGD([{"params": [one], "lr": 1.0}, {"params": [two], "lr": 2.0}])
    set_learning_rate(optimizer, 0.25)
    optimizer.step()
    assert (float(one.detach()), float(two.detach())) == (-0.25, -0.25)
