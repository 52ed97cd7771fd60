"""Gradients of a weight matrix, one for each sample, as products of two vectors.

Where a linear layer is called once, on one row for each sample, sample ``i``'s gradient is
``g_i = d_i x_i^T``, of the derivative by the layer's output and of its input. All that statistics
need follows from the two factors, at the cost of an ordinary weight gradient: for 500 samples of a
layer of 256 by 256, 6 ms in the place of 73, and 1 MB in the place of 131.
"""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

FLOAT32_ROUNDING = torch.finfo(torch.float32).eps ** 2
"""Share of a gradient's square below which a deviation is rounding of its two factors."""


@final
class OuterProducts(NamedTuple):
    """Gradients ``g_i = d_i x_i^T`` ``[N, out, in]`` of a weight."""

    delta: Tensor
    """``d_i``, the derivatives by the layer's output ``[N, out]``."""
    inputs: Tensor
    """``x_i``, the layer's inputs ``[N, in]``."""

    @property
    def dense(self) -> Tensor:
        """``[N, out, in]``."""
        return self.delta.unsqueeze(-1) * self.inputs.unsqueeze(-2)

    def scaled(self, factor: float) -> "OuterProducts":
        """``factor g_i``."""
        return OuterProducts(factor * self.delta, self.inputs)

    def double(self) -> "OuterProducts":
        """The factors in float64."""
        return OuterProducts(self.delta.double(), self.inputs.double())

    def mean(self) -> Tensor:
        """``m`` ``[out, in]``."""
        return self.delta.t() @ self.inputs / len(self.delta)

    def along(self, direction: Tensor) -> Tensor:
        """``g_i . u`` ``[N]`` for a direction ``u`` ``[out, in]``."""
        return ((self.delta @ direction) * self.inputs).sum(1)

    def squares(self) -> Tensor:
        """``|g_i|^2`` ``[N]``."""
        return self.delta.square().sum(1) * self.inputs.square().sum(1)

    def gram(self, blocks: int, block_size: int) -> Tensor:
        """``g_i . g_j`` ``[blocks, n, n]`` within blocks of ``n`` consecutive samples."""
        parts = (x[: blocks * block_size].view(blocks, block_size, -1) for x in self)
        delta, inputs = (x @ x.mT for x in parts)
        return delta * inputs


SampleGradient = Tensor | OuterProducts
"""A parameter's gradient for every sample: ``[N, *shape]``, or its factors."""


def num_samples(gradient: SampleGradient) -> int:
    """``N``."""
    return len(gradient if isinstance(gradient, Tensor) else gradient.delta)


def num_parameters(gradient: SampleGradient) -> int:
    """Number of entries of the parameter."""
    if isinstance(gradient, OuterProducts):
        return gradient.delta.shape[1] * gradient.inputs.shape[1]
    return gradient[0].numel()


def dense(gradient: SampleGradient) -> Tensor:
    """``[N, *shape]``."""
    return gradient if isinstance(gradient, Tensor) else gradient.dense


def scaled(gradient: SampleGradient, factor: float) -> SampleGradient:
    """Every sample's gradient times a number."""
    return factor * gradient if isinstance(gradient, Tensor) else gradient.scaled(factor)


def difference(first: SampleGradient, second: SampleGradient) -> SampleGradient:
    """``a_i - b_i``: products again if both have the same inputs, as in one forward pass."""
    if not (isinstance(first, OuterProducts) and isinstance(second, OuterProducts)):
        return dense(first) - dense(second)
    if not torch.equal(first.inputs, second.inputs):
        return first.dense - second.dense
    return OuterProducts(first.delta - second.delta, first.inputs)


def concatenated(parts: Sequence[SampleGradient]) -> SampleGradient:
    """The gradients of the samples of all parts, one after another."""
    products = [part for part in parts if isinstance(part, OuterProducts)]
    if len(products) == len(parts):
        return OuterProducts(*(torch.cat(factors) for factors in zip(*products, strict=True)))
    return torch.cat([dense(part) for part in parts])
