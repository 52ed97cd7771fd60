"""Second derivatives are refused where a backward pass has only the first."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.second_derivative import refuse_second_derivative


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        refuse_second_derivative("doubling is")
        return 2 * gradient


def test_only_a_backward_pass_that_builds_a_graph_raises() -> None:
    x = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(Doubled.apply(x).sum(), x)  # type: ignore[no-untyped-call]
    assert gradient.tolist() == [2, 2, 2]
    total = Doubled.apply(x).sum()  # type: ignore[no-untyped-call]
    with pytest.raises(RequestError, match=r"doubling is differentiable once.*create_graph=True"):
        torch.autograd.grad(total, x, create_graph=True)
