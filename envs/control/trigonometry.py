"""Sine, cosine and angles in [-pi, pi), equal to NumPy's and so to Gymnasium's in float64.

In float64 sine and cosine are those of the C library, by ``torch.polar``. Torch's own, which are
vectorised, differ from them in the last bit now and then. They are used in float32, and in compiled
code, which has no complex numbers.
"""

import math

import torch
from torch import Tensor

from pgtoolkit.compiling import is_tracing


def sine(angle: Tensor) -> Tensor:
    """``sin(angle)``, of any shape."""
    if angle.dtype != torch.float64 or is_tracing():
        return torch.sin(angle)
    return _on_unit_circle(angle).imag


def cosine(angle: Tensor) -> Tensor:
    """``cos(angle)``, of any shape."""
    if angle.dtype != torch.float64 or is_tracing():
        return torch.cos(angle)
    return _on_unit_circle(angle).real


def sine_and_cosine(angle: Tensor) -> tuple[Tensor, Tensor]:
    """``(sin(angle), cos(angle))``, in float64 by one evaluation for both."""
    if angle.dtype != torch.float64 or is_tracing():
        return torch.sin(angle), torch.cos(angle)
    point = _on_unit_circle(angle)
    return point.imag, point.real


def wrap_angle(angle: Tensor) -> Tensor:
    """The angle plus the multiple of 2 pi that brings it into [-pi, pi); its derivative is 1."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def _on_unit_circle(angle: Tensor) -> Tensor:
    """The complex number ``exp(i angle)``."""
    return torch.polar(torch.ones_like(angle), angle)
