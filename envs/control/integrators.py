"""The classical Runge-Kutta step of fourth order."""

from collections.abc import Callable

import torch
from torch import Tensor

from pgtoolkit.compiling import is_tracing


def rk4(derivative: Callable[[Tensor], Tensor], state: Tensor, dt: float) -> Tensor:
    """One step of ``ds/dt = f(s)``, with an error of order ``dt^5``.

    ::

        k1 = f(s)              k2 = f(s + dt/2 k1)
        k3 = f(s + dt/2 k2)    k4 = f(s + dt k3)
        s' = s + dt/6 (k1 + 2 k2 + 2 k3 + k4)

    Args:
        derivative: ``f``, keeps the shape.
        state: ``s``, any shape.
        dt: the step, in the unit of time.
    """
    k1 = derivative(state)
    k2 = derivative(state + dt / 2 * k1)
    k3 = derivative(state + dt / 2 * k2)
    k4 = derivative(state + dt * k3)
    return state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def sine_and_cosine(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's vectorised ones in float32, the C library's in float64.

    The two differ in the last bit now and then. In float64 NumPy's, and so Gymnasium's, are met,
    but in compiled code, which has no complex numbers.
    """
    if angle.dtype != torch.float64 or is_tracing():
        return torch.sin(angle), torch.cos(angle)
    unit = torch.polar(torch.ones_like(angle), angle)
    return unit.imag, unit.real
