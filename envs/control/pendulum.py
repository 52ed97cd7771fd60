"""Gymnasium's Pendulum-v1: swing a rod up with a torque that is too weak to lift it."""

import math
from typing import Any, final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.arguments import require_finite
from pgtoolkit.envs.control.trigonometry import sine, wrap_angle
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.rendering import canvas

MAX_TORQUE, MAX_SPEED, DT = 2.0, 8.0, 0.05
"""Units: N m, rad/s and s."""
MASS, LENGTH = 1.0, 1.0
"""Units: kg and m."""


@final
class Pendulum(DifferentiableEnv[Tensor]):
    """State ``[N, 2]``: the angle ``theta`` from upright, and its speed ``omega``.

    The action is a torque ``u`` in N m, clamped to ±2::

        omega' = clamp(omega + (3 g / (2 l) sin theta + 3 / (m l^2) u) dt, -8, 8)
        theta' = theta + omega' dt
        reward = -(wrap(theta)^2 + 0.1 omega^2 + 0.001 u^2)

    ``m = l = 1``, ``dt = 0.05``; ``wrap`` maps an angle to [-pi, pi). Observation ``[cos theta, sin
    theta, omega]``. Starts at a uniform angle with a speed in [-1, 1]; 200 steps; never terminal.
    The derivative is exact. It is 0 by a torque outside its bounds, and 0 through a speed that was
    clamped.

    Source: ``gymnasium/envs/classic_control/pendulum.py``, whose numbers this reproduces.

    Args:
        g: the acceleration of gravity in m/s^2.

    Raises:
        RequestError: ``g`` is not a finite number.
    """

    max_episode_steps = 200

    def __init__(self, g: float = 10.0) -> None:
        require_finite("Pendulum", g=g)
        self.g = float(g)
        high = np.array([1.0, 1.0, MAX_SPEED], dtype=np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        unit = 2 * torch.rand(num_envs, 2, generator=generator, device=generator.device) - 1
        return unit * unit.new_tensor([math.pi, 1.0])

    def numpy_initial(self, rng: np.random.Generator) -> Tensor:
        # The same draw as in Gymnasium's reset, so that equal seeds give equal episodes.
        high = np.array([np.pi, 1.0])
        return torch.from_numpy(rng.uniform(low=-high, high=high)).unsqueeze(0)

    def numpy_action(self, action: NDArray[Any], dtype: torch.dtype) -> Tensor:
        # As in Gymnasium, the terms of a float32 torque are computed in float32.
        return torch.tensor(action).unsqueeze(0)

    def numpy_reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> float:
        # Gymnasium squares NumPy scalars by the C library's pow, whose last bit sometimes differs
        # from that of a product, and its check_environments_match compares rewards by ==.
        theta, omega = state[0].numpy()
        torque = np.clip(action[0, 0].numpy(), -MAX_TORQUE, MAX_TORQUE)[()]
        angle = ((theta + np.pi) % (2 * np.pi)) - np.pi
        # np.float64 is the type that Gymnasium returns.
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
        """The rod with its mass, from blue at rest to red at the highest speed."""
        theta, omega = state[index].tolist()
        tip = (-math.sin(theta), math.cos(theta))
        picture = canvas.blank(extent=1.45)
        picture = canvas.ring(picture, (0.0, 0.0), 1.0, 0.012, canvas.LIGHT)
        picture = canvas.disc(picture, (0.0, 1.0), 0.035, canvas.GREEN)
        picture = canvas.segment(picture, (0.0, 0.0), tip, 0.07, canvas.DARK)
        picture = canvas.disc(picture, (0.0, 0.0), 0.075, canvas.DARK)
        picture = canvas.disc(picture, (0.0, 0.0), 0.035, canvas.BACKGROUND)
        colour = canvas.mix(canvas.BLUE, canvas.RED, abs(omega) / MAX_SPEED)
        return canvas.disc(picture, tip, 0.16, colour).rgb()


def _torque(action: Tensor) -> Tensor:
    return action[:, 0].clamp(-MAX_TORQUE, MAX_TORQUE)
