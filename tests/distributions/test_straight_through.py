"""One tensor's value with another's gradient."""

import pytest
import torch

from pgtoolkit.distributions.implicit import with_gradient_of


def test_value_of_one_gradient_of_the_other() -> None:
    """Both to the bit."""
    x = torch.tensor([0.1, 2.0, -3.0], requires_grad=True)
    value, other = 7.3 * x, 1e8 * x**2
    result = with_gradient_of(value, other)
    assert torch.equal(result, value)
    (gradient,) = torch.autograd.grad(result.sum(), x)
    again = x.detach().requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad((1e8 * again**2).sum(), again)[0])


def test_a_value_does_not_suffer_from_a_gradient_that_is_not_finite() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    result = with_gradient_of(torch.ones(2), 1 / x)
    assert result.tolist() == [1.0, 1.0]
    assert torch.autograd.grad(result.sum(), x)[0].tolist() == [-torch.inf, -1 / 16]


def test_no_graph_where_the_other_has_none() -> None:
    x = torch.ones(2, requires_grad=True)
    assert not with_gradient_of(2 * x, torch.ones(2)).requires_grad


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"value has shape \[2\]"):
        with_gradient_of(torch.ones(2), torch.ones(2, 1))
