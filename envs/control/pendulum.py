"""Gymnasium's Pendulum-v1: swing a rod up with a torque that is too weak to lift it."""

import math
from typing import Any, final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.compiling import is_tracing
from pgtoolkit.envs.analytic.exact import require_finite_arguments
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.rendering import canvas as drawing

MAX_TORQUE, MAX_SPEED, DT = 2.0, 8.0, 0.05

MASS, LENGTH = 1.0, 1.0


@final
class Pendulum(DifferentiableEnv[Tensor]):
    """State ``[N, 2]``: the angle ``theta`` from upright, and its speed ``omega``.

    With the torque ``u`` clamped to ±2::

        omega' = clamp(omega + (3 g / (2 l) sin theta + 3 / (m l^2) u) dt, -8, 8)
        theta' = theta + omega' dt
        reward = -(wrap(theta)^2 + 0.1 omega^2 + 0.001 u^2)

    ``m = l = 1``, ``dt = 0.05``; ``wrap`` maps an angle to [-pi, pi). Observation ``[cos theta, sin
    theta, omega]``. Starts at a uniform angle with a speed in [-1, 1]; 200 steps; never terminal.
    The derivative is exact; it is 0 by a torque beyond its clamp, and a speed beyond its clamp
    depends on nothing before it.

    Source: ``gymnasium/envs/classic_control/pendulum.py``, whose numbers this reproduces.

    Args:
        g: the acceleration of gravity.

    Raises:
        RequestError: it is not a finite number.
    """

    max_episode_steps = 200

    def __init__(self, g: float = 10.0) -> None:
        require_finite_arguments("Pendulum", g=g)
        self.g = float(g)
        high = np.array([1.0, 1.0, MAX_SPEED], dtype=np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        unit = 2 * torch.rand(num_envs, 2, generator=generator, device=generator.device) - 1
        return unit * unit.new_tensor([math.pi, 1.0])

    def numpy_initial(self, rng: np.random.Generator) -> Tensor:
        # The very draw of Gymnasium's reset, so that equal seeds give equal episodes.
        high = np.array([np.pi, 1.0])
        return torch.from_numpy(rng.uniform(low=-high, high=high)).unsqueeze(0)

    def numpy_action(self, action: NDArray[Any], dtype: torch.dtype) -> Tensor:
        # A float32 action stays float32 in the terms of the torque, as it does in Gymnasium.
        return torch.tensor(action).unsqueeze(0)

    def numpy_reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> float:
        # Gymnasium squares NumPy scalars, which the C library's pow does: now and then another last
        # bit than a product has, and check_environments_match compares rewards by ==.
        theta, omega = state[0].numpy()
        torque = np.clip(action[0, 0].numpy(), -MAX_TORQUE, MAX_TORQUE)[()]
        angle = ((theta + np.pi) % (2 * np.pi)) - np.pi
        # Gymnasium's type too.
        return -np.float64(angle**2 + 0.1 * omega**2 + 0.001 * (torque**2))

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        theta, omega = state.unbind(-1)
        gravity = 3 * self.g / (2 * LENGTH) * sine(theta)
        acceleration = gravity + 3.0 / (MASS * LENGTH**2) * _torque(action)
        omega = (omega + acceleration * DT).clamp(-MAX_SPEED, MAX_SPEED)
        return torch.stack([theta + omega * DT, omega], -1)

    def observation(self, state: Tensor) -> Tensor:
        theta, omega = state.unbind(-1)
        return torch.stack([torch.cos(theta), torch.sin(theta), omega], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        theta, omega = state.unbind(-1)
        return -(wrap_angle(theta) ** 2 + 0.1 * omega**2 + 0.001 * _torque(action) ** 2)

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The rod with its mass, which reddens with speed."""
        theta, omega = state[index].tolist()
        tip = (-math.sin(theta), math.cos(theta))
        picture = drawing.canvas(extent=1.45)
        picture = drawing.ring(picture, (0.0, 0.0), 1.0, 0.012, drawing.FAINT)
        picture = drawing.disc(picture, (0.0, 1.0), 0.035, drawing.GREEN)
        picture = drawing.segment(picture, (0.0, 0.0), tip, 0.07, drawing.INK)
        picture = drawing.disc(picture, (0.0, 0.0), 0.075, drawing.INK)
        picture = drawing.disc(picture, (0.0, 0.0), 0.035, drawing.PAPER)
        colour = drawing.mix(drawing.BLUE, drawing.RED, abs(omega) / MAX_SPEED)
        return drawing.disc(picture, tip, 0.16, colour).rgb()


def wrap_angle(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi); its derivative is 1."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def sine(angle: Tensor) -> Tensor:
    """``sin(angle)``: torch's vectorised one in float32, the C library's in float64.

    The two differ in the last bit now and then. In float64 NumPy's, and so Gymnasium's, is met,
    but in compiled code, which has no complex numbers.
    """
    if angle.dtype != torch.float64 or is_tracing():
        return torch.sin(angle)
    return torch.polar(torch.ones_like(angle), angle).imag


def _torque(action: Tensor) -> Tensor:
    return action[:, 0].clamp(-MAX_TORQUE, MAX_TORQUE)
