"""Tests of gradient clipping against known numbers."""

import pytest
import torch
from torch import nn

from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.gradient_clip import clip_gradient, require_finite_gradient


def with_gradients(*values: list[float]) -> nn.ParameterList:
    parameters = nn.ParameterList(torch.zeros(len(value)) for value in values)
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return parameters


def test_a_long_gradient_is_scaled_to_the_norm_over_all_parameters() -> None:
    """(3, 0) and (4) have norm 5: a fifth of each, in the same direction."""
    module = with_gradients([3.0, 0.0], [4.0])
    one, two = module
    assert float(clip_gradient(module.named_parameters(), 1.0)) == pytest.approx(5)
    assert one.grad is not None and two.grad is not None
    assert one.grad.tolist() == pytest.approx([0.6, 0], rel=1e-5)
    assert two.grad.tolist() == pytest.approx([0.8], rel=1e-5)


def test_a_short_gradient_is_left_as_it_is() -> None:
    """The gradient is unchanged to the last bit, and its norm is returned."""
    module = with_gradients([0.3, 0.4])
    (one,) = module
    assert float(clip_gradient(module.named_parameters(), 1.0)) == pytest.approx(0.5)
    assert one.grad is not None
    assert torch.equal(one.grad, torch.tensor([0.3, 0.4]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_named(bad: float) -> None:
    """A parameter without a gradient is none of its business."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    require_finite_gradient(module.named_parameters())
    module[1].bias.grad = torch.tensor([0.0, bad])
    with pytest.raises(NonFiniteError, match=r"gradient of 1\.bias is not finite"):
        require_finite_gradient(module.named_parameters())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_clip_of_a_gradient_that_is_not_finite_names_it_and_changes_nothing(bad: float) -> None:
    module = with_gradients([3.0, 4.0], [0.0, bad])
    with pytest.raises(NonFiniteError, match=r"gradient of 1 is not finite"):
        clip_gradient(module.named_parameters(), 1.0)
    assert module[0].grad is not None and module[0].grad.tolist() == [3.0, 4.0]


def test_a_finite_gradient_whose_squares_overflow_is_clipped_as_any_other() -> None:
    """(1.5e38, 2e38) has norm 2.5e38, with squares beyond float32; it is clipped to (.6, .8)."""
    module = with_gradients([1.5e38, 0.0], [2e38])
    one, two = module
    assert float(clip_gradient(module.named_parameters(), 1.0)) == pytest.approx(2.5e38)
    assert one.grad is not None and two.grad is not None
    assert one.grad.tolist() == pytest.approx([0.6, 0.0], rel=1e-5)
    assert two.grad.tolist() == pytest.approx([0.8], rel=1e-5)


def test_a_norm_beyond_float32_is_returned_as_it_is() -> None:
    module = with_gradients([3e38, 3e38])
    assert float(clip_gradient(module.named_parameters(), 1.0)) == pytest.approx(3e38 * 2**0.5)


def test_a_long_gradient_under_a_longer_bound_is_left_alone() -> None:
    module = with_gradients([3e19, 4e19])
    assert float(clip_gradient(module.named_parameters(), 1e30)) == pytest.approx(5e19)
    (one,) = module
    assert one.grad is not None and one.grad.tolist() == pytest.approx([3e19, 4e19])


def test_the_largest_finite_gradient_is_clipped_to_all_digits() -> None:
    """1 over it is below the least normal float32, which some processors take for 0."""
    module = with_gradients([3.4e38, -1.7e38])
    torch.set_flush_denormal(True)
    try:
        clip_gradient(module.named_parameters(), 1.0)
    finally:
        torch.set_flush_denormal(False)
    (one,) = module
    assert one.grad is not None
    assert one.grad.tolist() == pytest.approx([2 / 5**0.5, -1 / 5**0.5], rel=1e-6)
