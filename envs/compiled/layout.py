"""How compiled loops hold tensors in memory, so that the compiler can take many numbers at once.

A state ``[N, D]`` has few columns, and dynamics work on whole columns: it is held as ``[D, N]``,
where the numbers of a column lie side by side. Truth values are held as 0 and 1 in float32: those
are compared and chosen by in the processor's vectors, where bytes of truth values must be unpacked.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from pgtoolkit.compiling import NARROW


@final
class Form(NamedTuple):
    """How one tensor is held."""

    turned: bool
    """Its last two axes are exchanged."""
    flag: bool
    """Its truth values are numbers."""

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """From the tensor as one step has it: ``[N, ...]``."""
        return cls(x.dim() == 2 and 1 < x.shape[1] <= NARROW, x.dtype == torch.bool)


def hold(tensors: Iterable[Tensor], forms: Iterable[Form]) -> list[Tensor]:
    """Into the form that loops hold, contiguous; of one step, or stacked ``[L, N, ...]``."""
    return [_hold(x, form) for x, form in zip(tensors, forms, strict=True)]


def release(tensors: Iterable[Tensor], forms: Iterable[Form]) -> list[Tensor]:
    """Back from it; what was turned is a view."""
    return [_release(x, form) for x, form in zip(tensors, forms, strict=True)]


def _hold(x: Tensor, form: Form) -> Tensor:
    x = x.float() if form.flag else x
    return (x.transpose(-1, -2) if form.turned else x).contiguous()


def _release(x: Tensor, form: Form) -> Tensor:
    x = x > 0.5 if form.flag else x
    return x.transpose(-1, -2) if form.turned else x
