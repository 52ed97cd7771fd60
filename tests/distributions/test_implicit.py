"""One tensor's value with another's gradient, differentiable once or any number of times."""

import pytest
import torch

from pgtoolkit.distributions.implicit import implicit_sample, with_gradient_of
from pgtoolkit.errors import RequestError


def test_value_of_one_gradient_of_the_other() -> None:
    """Value and gradient equal those of the two tensors bit for bit."""
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


def test_an_implicit_sample_has_the_value_of_one_and_the_derivative_of_the_other() -> None:
    """This holds for batched gradients too, which per-trajectory gradients may use."""
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = implicit_sample(10 * x, x.square())
    assert y.tolist() == [10.0, 20.0, 30.0]
    (rows,) = torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True, retain_graph=True)
    assert rows.tolist() == [[2.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 6.0]]
    (total,) = torch.autograd.grad(y.sum(), x)
    assert total.tolist() == [2.0, 4.0, 6.0]


def test_a_second_derivative_of_an_implicit_sample_is_refused() -> None:
    """It is refused by the parameters; by the sample itself all derivatives are available."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = implicit_sample(x, x.square())
    (by_result,) = torch.autograd.grad(y.pow(3).sum(), y, create_graph=True)
    (second,) = torch.autograd.grad(by_result.sum(), y, retain_graph=True)
    assert second.tolist() == [6.0, 12.0]
    with pytest.raises(RequestError, match="second derivative"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_the_derivative_source_of_an_implicit_sample_can_be_differentiated_elsewhere() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    source = x.pow(3)
    implicit_sample(x, source)
    (first,) = torch.autograd.grad(source.sum(), x, create_graph=True)
    assert torch.autograd.grad(first.sum(), x)[0].tolist() == [6.0, 12.0]


def test_an_implicit_sample_without_a_graph_is_its_value() -> None:
    """Without a graph the result is the value, and no hook is set."""
    x = torch.tensor([1.0, 2.0])
    assert implicit_sample(x, x.square()).tolist() == [1.0, 2.0]
