import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.control.integrators import rk4


def test_cubic_polynomials_of_time_are_integrated_exactly() -> None:
    def derivative(state: Tensor) -> Tensor:
        time = state[:, 0]
        return torch.stack([torch.ones_like(time), 4 * time**3 - 3 * time**2 + 1], -1)

    after = rk4(derivative, torch.zeros(1, 2, dtype=torch.float64), 1.7)
    assert after[0].tolist() == pytest.approx([1.7, 1.7**4 - 1.7**3 + 1.7], abs=1e-14)


def test_a_linear_step_is_the_exponential_up_to_fourth_order() -> None:
    start = torch.ones(1, 1, dtype=torch.float64)
    after = rk4(lambda s: -2 * s, start, 0.3)
    assert after.item() == pytest.approx(sum((-0.6) ** k / math.factorial(k) for k in range(5)))


def test_half_the_step_has_a_sixteenth_of_the_error() -> None:
    def swing(state: Tensor) -> Tensor:
        angle, speed = state.unbind(-1)
        return torch.stack([speed, -torch.sin(angle)], -1)

    def end(steps: int) -> Tensor:
        state = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
        for _ in range(steps):
            state = rk4(swing, state, 2.0 / steps)
        return state

    exact = end(2000)
    ratio = (end(20) - exact).norm() / (end(40) - exact).norm()
    # Of order dt^4, the next term of dt^5: 16 (1 + O(dt)).
    assert 14.0 < ratio < 18.0
