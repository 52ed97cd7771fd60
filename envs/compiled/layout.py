"""Memory layout of tensors in a compiled loop, chosen so that the compiler can vectorise.

Dynamics work on the columns of a state ``[N, D]``, of which there are few. A loop keeps the state
as ``[D, N]``, where the ``N`` entries of a column are adjacent in memory. It keeps booleans as 0
and 1 in float32, because the processor compares and selects float vectors directly, while booleans
of one byte would have to be unpacked first.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from pgtoolkit.compiling import MAX_NARROW_COLUMNS


@final
class Layout(NamedTuple):
    """Memory layout of one tensor in a compiled loop."""

    transposed: bool
    """The last two axes are exchanged."""
    bool_as_float: bool
    """Booleans are 0 and 1 in float32."""

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """The layout for a tensor ``[N, ...]`` of one step."""
        return cls(
            transposed=x.dim() == 2 and 1 < x.shape[1] <= MAX_NARROW_COLUMNS,
            bool_as_float=x.dtype == torch.bool,
        )


def pack(tensors: Iterable[Tensor], layouts: Iterable[Layout]) -> list[Tensor]:
    """Converts tensors to their layouts, contiguous; ``[N, ...]``, or stacked ``[L, N, ...]``."""
    return [_pack(x, layout) for x, layout in zip(tensors, layouts, strict=True)]


def unpack(tensors: Iterable[Tensor], layouts: Iterable[Layout]) -> list[Tensor]:
    """The inverse of :func:`pack`. Transposed tensors come back as views, not as copies."""
    return [_unpack(x, layout) for x, layout in zip(tensors, layouts, strict=True)]


def _pack(x: Tensor, layout: Layout) -> Tensor:
    x = x.float() if layout.bool_as_float else x
    return (x.transpose(-1, -2) if layout.transposed else x).contiguous()


def _unpack(x: Tensor, layout: Layout) -> Tensor:
    x = x > 0.5 if layout.bool_as_float else x
    return x.transpose(-1, -2) if layout.transposed else x
