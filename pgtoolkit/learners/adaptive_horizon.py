"""A horizon as long as the adjoint allows, by the dual variables of a constrained problem.

Where the closed loop amplifies, ``|dJ/du_t|`` grows with every step backwards in time, and the
variance of the pathwise gradient with its square. Let ``A_d`` be the size of the adjoint ``d``
steps before the end of its segment, divided by that of the segment's last step, without the
discount. Given a value function that is right, the mean of ``dJ/du_t`` is as large at the start of
a window as at its end (it is ``gamma^t dQ/du``), so what ``A_d`` has beyond 1 is variance. The
horizon is to solve

    ``max H  such that  log A_d <= log C  for all d < H``.

After each update the augmented Lagrangian of this problem is ascended in ``H`` and descended in the
multipliers ``phi_d``::

    g_d   = log A_d - log C
    phi_d = max(0, phi_d + rate g_d)
    H     = H + rate_H (1 - sum_d max(0, phi_d + damping g_d))

for the ``d`` of the window. Where no constraint is violated, ``H`` grows. At the solution the
constraint of the first step holds with equality, and its multiplier is 1. The Lagrangian is linear
in ``H``; without damping, ``H`` and the multipliers would circle around the solution.

Source: Georgiev et al. 2024, whose constraint is on contact forces in the place of the adjoint. Two
published codes step ``H`` in opposite directions, one of them against the constraint, and let the
multipliers become negative.
"""

import math
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.estimators.returns import segment_discount, steps_to_end
from pgtoolkit.rollouts.window import Window
from pgtoolkit.shapes import check_shape
from pgtoolkit.state import load_state_of, state_of

STATE = ("length", "duals")
MIN_SAMPLES = 3
"""Steps with the same distance from their segment's end from which its adjoint is measured."""


@final
class AdaptiveHorizon:
    """The number of steps of the next window.

    Args:
        first: the first number, free of the limits.
        low: the least of the later ones.
        high: the largest of the later ones.
        bound: ``C``, above 1.
        rate: of the multipliers.
        length_rate: ``rate_H``, the steps by which the horizon grows in an update where nothing is
            amplified.
        damping: weight of the present violation beside the multipliers.
        device: where the multipliers live.
    """

    def __init__(
        self,
        first: int,
        low: int,
        high: int,
        *,
        bound: float,
        rate: float = 0.1,
        length_rate: float = 1.0,
        damping: float = 1.0,
        device: torch.device | None = None,
    ) -> None:
        self.length, self.low, self.high = float(first), low, high
        self.longest = max(first, high)
        self.bound, self.rate, self.length_rate, self.damping = bound, rate, length_rate, damping
        self.duals = torch.zeros(self.longest, dtype=torch.float64, device=device)

    @property
    def steps(self) -> int:
        """The number of steps of the next window."""
        return min(max(round(self.length), 1), self.longest)

    def step(self, action_gradient: Tensor, window: Window, gamma: float) -> Metrics:
        """Changes multipliers and horizon by what was measured on a window.

        The horizon at most halves in one step.

        Args:
            action_gradient: ``dJ/du`` ``[T, N, A]`` through the environment.
            window: without a graph.
            gamma: the objective's discount.
        """
        growth = amplification(action_gradient, window, gamma)
        excess = growth.log() - math.log(self.bound)
        excess = torch.where(excess.isfinite(), excess, 0.0)
        duals = self.duals[: len(excess)]
        duals.add_(self.rate * excess).clamp_(min=0)
        weight = float((duals + self.damping * excess).clamp(min=0).sum())
        change = max(self.length_rate * (1 - weight), -0.5 * self.length)
        self.length = min(max(self.length + change, float(self.low)), float(self.high))
        return {
            "train/horizon": torch.tensor(float(window.num_steps)),
            "train/horizon_dual": self.duals.sum(),
            "train/horizon_amplification": growth.nan_to_num(0.0).amax(),
        }

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


def amplification(action_gradient: Tensor, window: Window, gamma: float) -> Tensor:
    """``A_d`` ``[T]``: the adjoint ``d`` steps before its segment's end, by that of the end.

    It is the quotient of two root mean squares of ``gamma^-k |dJ/du|``, with ``k`` the number of
    earlier steps of the segment. Segments that a terminal state has ended are left out: there the
    last adjoint is that of one reward alone. NaN where fewer than ``MIN_SAMPLES`` steps are at a
    distance, or the adjoints at the end are 0.

    Args:
        action_gradient: ``dJ/du`` ``[T, N, A]``.
        window: gives segments, valid and terminal steps.
        gamma: the objective's discount.
    """
    check_shape("action_gradient", action_gradient, *window.reward.shape, None)
    distance = steps_to_end(window.segment_end)
    end = torch.arange(len(distance), device=distance.device).unsqueeze(1) + distance
    discount = segment_discount(window.segment_end, gamma).to(distance.device)
    counts = window.valid & ~window.terminated.gather(0, end) & (discount > 0)
    size = action_gradient.double().square().sum(-1) / discount.square()
    rows = distance[counts]
    total = size.new_zeros(len(distance)).index_add_(0, rows, size[counts])
    number = torch.bincount(rows, minlength=len(distance))
    square = torch.where(number >= MIN_SAMPLES, total / number, torch.nan)
    return torch.where(square[0] > 0, square / square[0], torch.nan).sqrt()
