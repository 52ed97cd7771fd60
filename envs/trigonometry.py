"""Sines and cosines that meet NumPy's in double precision."""

import torch
from torch import Tensor

from pgtoolkit.compiling import is_tracing


def sine_and_cosine(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's vectorised ones in float32, the C library's in float64.

    The two differ in the last bit now and then. In float64 NumPy's, and so Gymnasium's, are met,
    but in compiled code, which has no complex numbers.
    """
    if angle.dtype != torch.float64 or is_tracing():
        return torch.sin(angle), torch.cos(angle)
    unit = torch.polar(torch.ones_like(angle), angle)
    return unit.imag, unit.real
