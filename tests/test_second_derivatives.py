"""A backward pass that is right to first order only refuses to build a graph of itself."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.second_derivatives import once_differentiable, refuse_second_derivative


def test_a_second_derivative_is_refused_with_what_to_do() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    y = once_differentiable(x * x, "the gradient of a square", "use a cube")
    assert torch.autograd.grad(y, x, retain_graph=True)[0].item() == 6.0
    message = "the gradient of a square cannot be differentiated again.*create_graph=True, or use a"
    with pytest.raises(RequestError, match=message):
        torch.autograd.grad(y, x, create_graph=True)


def test_a_tensor_without_a_graph_is_returned_as_it_is() -> None:
    x = torch.tensor(3.0)
    assert once_differentiable(x, "the gradient of x") is x


def test_only_a_backward_pass_with_gradient_mode_is_refused() -> None:
    with torch.no_grad():
        refuse_second_derivative("the gradient of x")
    with pytest.raises(RequestError, match=r"create_graph=True$"):
        refuse_second_derivative("the gradient of x")


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        refuse_second_derivative("the gradient of a doubling")
        return 2 * gradient


def test_only_a_backward_pass_that_builds_a_graph_raises() -> None:
    x = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(Doubled.apply(x).sum(), x)  # type: ignore[no-untyped-call]
    assert gradient.tolist() == [2, 2, 2]
    total = Doubled.apply(x).sum()  # type: ignore[no-untyped-call]
    message = r"a doubling cannot be differentiated again.*create_graph=True"
    with pytest.raises(RequestError, match=message):
        torch.autograd.grad(total, x, create_graph=True)
