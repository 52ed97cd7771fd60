"""The value of one tensor with the gradient of another."""

from typing import Any, final

import torch
from torch import Tensor


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
