"""Implicit reparameterisation: samples whose derivative is known, not the path that leads to it.

A sample ``x`` with cumulative distribution ``F(x; theta)`` keeps its rank ``F`` when ``theta``
moves, so ``dx/dtheta = -(dF/dtheta) / p(x)`` (Figurnov et al. 2018, eq. 5). However ``x`` was
drawn, that derivative gives the pathwise gradient.
"""

from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.second_derivatives import once_differentiable


def with_derivative(value: Tensor, first_order: Tensor) -> Tensor:
    """``value``, with the derivative of ``first_order``.

    To first order only: what a second derivative would find in this graph is wrong, so it is
    refused. Derivatives by the result itself are not affected.

    Args:
        value: a sample; detached here.
        first_order: of the same shape; only its derivative counts, and its value must be finite.

    Raises:
        RequestError: in a backward pass that builds a graph (``create_graph=True``).
    """
    change = once_differentiable(
        first_order - first_order.detach(),
        "the gradient of an implicitly reparameterised sample",
        "use a distribution whose sample is a formula (Gaussian, flow)",
    )
    return value.detach() + change


def with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    """A tensor that equals ``value`` to the bit and whose derivative is that of ``other``.

    The usual ``value + (other - other.detach())`` rounds nothing away, but turns an ``other`` that
    is not finite into a value that is not.

    Args:
        value: its own graph is cut.
        other: of the same shape; without a graph the result has none either.

    Raises:
        ValueError: the shapes differ.
    """
    if value.shape != other.shape:
        raise ValueError(
            f"value has shape {list(value.shape)}, what it takes its gradient from "
            f"{list(other.shape)}"
        )
    result: Tensor = _WithGradientOf.apply(value.detach(), other)  # type: ignore[no-untyped-call]
    return result


@final
class _WithGradientOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, other: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *adjoints: Any) -> Any:
        return None, adjoints[0]
