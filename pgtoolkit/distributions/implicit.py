"""The value of one tensor with the gradient of another; implicitly reparameterised samples.

A sample ``x`` with cumulative distribution function ``F(x; theta)`` keeps its rank ``F`` when
``theta`` moves, so ``dx/dtheta = -(dF/dtheta) / p(x)`` (Figurnov et al. 2018, eq. 5). This
derivative is the pathwise one, whatever algorithm drew ``x``.
"""

from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.second_derivatives import once_differentiable


def with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    """A tensor that equals ``value`` to the bit and has the derivative of ``other``.

    Unlike ``value + (other - other.detach())``, it stays finite where ``other`` is not.

    Args:
        value: detached here.
        other: a tensor of the same shape. If it has no graph, the result has none either.

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


def implicit_sample(value: Tensor, derivative_source: Tensor) -> Tensor:
    """A sample's ``value`` with the first derivative of ``derivative_source``.

    A second derivative with respect to the parameters would be wrong and is refused. Functions of
    the result can be differentiated with respect to the result any number of times.

    Args:
        value: detached here.
        derivative_source: a tensor of the same shape; only its derivative is used.

    Raises:
        RequestError: a backward pass through the sample builds a graph of itself
            (``create_graph=True``).
    """
    # A view: the hook must not act on other uses of the tensor.
    source = derivative_source.view_as(derivative_source)
    once = once_differentiable(
        source,
        "the gradient of an implicitly reparameterised sample",
        "use a distribution whose sample is a formula (Gaussian, flow)",
    )
    return with_gradient_of(value, once)
