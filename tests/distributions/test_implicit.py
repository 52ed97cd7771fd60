"""A value with a derivative from elsewhere."""

import pytest
import torch

from pgtoolkit.distributions.implicit import with_derivative
from pgtoolkit.errors import RequestError


def test_value_of_the_one_derivative_of_the_other() -> None:
    """Also where gradients are batched, as the general way of per-trajectory gradients does."""
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = with_derivative(10 * x, x.square())
    assert y.tolist() == [10.0, 20.0, 30.0]
    (rows,) = torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True, retain_graph=True)
    assert rows.tolist() == [[2.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 6.0]]
    (total,) = torch.autograd.grad(y.sum(), x)
    assert total.tolist() == [2.0, 4.0, 6.0]


def test_a_second_derivative_is_refused() -> None:
    """Of the result by the parameters; not of a function by the result."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = with_derivative(x, x.square())
    (by_result,) = torch.autograd.grad(y.pow(3).sum(), y, create_graph=True)
    (second,) = torch.autograd.grad(by_result.sum(), y, retain_graph=True)
    assert second.tolist() == [6.0, 12.0]
    with pytest.raises(RequestError, match="second derivative"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_without_a_graph_it_is_the_value() -> None:
    """No hook is needed, and none is set."""
    x = torch.tensor([1.0, 2.0])
    assert with_derivative(x, x.square()).tolist() == [1.0, 2.0]
