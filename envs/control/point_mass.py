"""A point mass on a plane, to be pushed to the origin and held there."""

from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.rendering import canvas

DT, DAMPING = 0.1, 0.1
"""Units: s and 1/s."""


@final
class PointMass(DifferentiableEnv[Tensor]):
    """State and observation ``[N, 4]``: position ``p`` and velocity ``v``.

    The action ``a``, clamped to [-1, 1] in each direction, is a force on a mass of 1. Semi-implicit
    Euler steps of ``dt = 0.1`` with damping ``c = 0.1``::

        v' = v + dt (a - c v)
        p' = p + dt v'
        reward = -dt (|p'|^2 + 0.1 |v'|^2 + 0.01 |a|^2)

    The reward is of the state after the step, so every action affects its own reward. Starts at
    rest, uniform in [-1, 1]^2; 100 steps; never terminal. The derivative is exact.
    """

    max_episode_steps = 100

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        position = 2 * torch.rand(num_envs, 2, generator=generator, device=generator.device) - 1
        return torch.cat([position, torch.zeros_like(position)], -1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        position, velocity = state.chunk(2, dim=-1)
        velocity = velocity + DT * (action.clamp(-1.0, 1.0) - DAMPING * velocity)
        return torch.cat([position + DT * velocity, velocity], -1)

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        position, velocity = next_state.chunk(2, dim=-1)
        force = action.clamp(-1.0, 1.0)
        cost = position.square() + 0.1 * velocity.square() + 0.01 * force.square()
        return -DT * cost.sum(-1)

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The mass, a line for its velocity, and a ring at the origin."""
        x, y, speed_x, speed_y = state[index].tolist()
        arrow_tip = (x + 0.5 * speed_x, y + 0.5 * speed_y)
        picture = canvas.blank(extent=1.6)
        picture = canvas.segment(picture, (-1.6, 0.0), (1.6, 0.0), 0.01, canvas.LIGHT)
        picture = canvas.segment(picture, (0.0, -1.6), (0.0, 1.6), 0.01, canvas.LIGHT)
        picture = canvas.ring(picture, (0.0, 0.0), 0.15, 0.03, canvas.GREEN)
        picture = canvas.segment(picture, (x, y), arrow_tip, 0.035, canvas.DARK)
        return canvas.disc(picture, (x, y), 0.09, canvas.BLUE).rgb()
