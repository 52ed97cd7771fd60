"""Integrators of ordinary differential equations."""

from collections.abc import Callable

from torch import Tensor


def rk4(derivative: Callable[[Tensor], Tensor], state: Tensor, dt: float) -> Tensor:
    """One step of ``ds/dt = f(s)`` by the classical Runge-Kutta method, with error ``O(dt^5)``.

    ::

        k1 = f(s)              k2 = f(s + dt/2 k1)
        k3 = f(s + dt/2 k2)    k4 = f(s + dt k3)
        s' = s + dt/6 (k1 + 2 k2 + 2 k3 + k4)

    Args:
        derivative: ``f``; it keeps the shape.
        state: ``s``, any shape.
        dt: the step, in the unit of time.
    """
    k1 = derivative(state)
    k2 = derivative(state + dt / 2 * k1)
    k3 = derivative(state + dt / 2 * k2)
    k4 = derivative(state + dt * k3)
    return state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
