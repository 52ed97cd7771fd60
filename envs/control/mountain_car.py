"""Gymnasium's MountainCarContinuous-v0: out of a valley with an engine that is too weak."""

import itertools
import math
from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.control.trigonometry import cosine
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.rendering import canvas

POWER, GRAVITY, MAX_SPEED = 0.0015, 0.0025, 0.07
"""The largest changes of the speed in a step by engine and gravity, and the largest speed."""
MIN_POSITION, MAX_POSITION, GOAL = -1.2, 0.6, 0.45


@final
class MountainCarContinuous(DifferentiableEnv[Tensor]):
    """State and observation ``[N, 2]``: position ``x`` and speed ``v``.

    The action ``a``, clamped to [-1, 1], is the force of the engine::

        v' = clamp(v + 0.0015 clamp(a) - 0.0025 cos 3x, -0.07, 0.07)
        x' = clamp(x + v', -1.2, 0.6), and v' = 0 if the car hit the left wall
        reward = 100 1[x' >= 0.45 and v' >= 0] - 0.1 a^2

    Starts at rest, uniform in [-0.6, -0.4]; terminal at the goal; 999 steps.

    The derivative of the dynamics is exact almost everywhere. It is 0 by a force outside its
    bounds and through a speed or position that was clamped. The left wall stops the car at once, a
    jump that no derivative includes. The reward of 100 at the goal is an event without a
    derivative, which leaves that of the action's cost, ``-0.2 a``: a pathwise agent learns to do
    nothing.

    Source: ``gymnasium/envs/classic_control/continuous_mountain_car.py``. Gymnasium rounds the
    state to float32 at every step; this environment does not, and is otherwise equal.
    """

    max_episode_steps = 999
    gradient = GradientInfo(reward="approximate", contacts="stiff")

    def __init__(self) -> None:
        low = np.array([MIN_POSITION, -MAX_SPEED], dtype=np.float32)
        high = np.array([MAX_POSITION, MAX_SPEED], dtype=np.float32)
        self.observation_space = Box(low, high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        unit = torch.rand(num_envs, 1, generator=generator, device=generator.device)
        return torch.cat([0.2 * unit - 0.6, torch.zeros_like(unit)], -1)

    def numpy_initial(self, rng: np.random.Generator) -> Tensor:
        # The same draw as in Gymnasium's reset, so that equal seeds give equal episodes.
        return torch.tensor([[rng.uniform(low=-0.6, high=-0.4), 0.0]], dtype=torch.float64)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        position, speed = state.unbind(-1)
        force = action[:, 0].clamp(-1.0, 1.0)
        speed = speed + (force * POWER - GRAVITY * cosine(3 * position))
        speed = speed.clamp(-MAX_SPEED, MAX_SPEED)
        position = position + speed
        stopped = (position <= MIN_POSITION) & (speed < 0)
        speed = torch.where(stopped, torch.zeros_like(speed), speed)
        return torch.stack([position.clamp(MIN_POSITION, MAX_POSITION), speed], -1)

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        prize = 100.0 * self.terminal(next_state).to(next_state.dtype)
        return prize - action[:, 0].square() * 0.1

    def terminal(self, state: Tensor) -> Tensor:
        position, speed = state.unbind(-1)
        return (position >= GOAL) & (speed >= 0.0)

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The car in its valley, and a flag at the goal."""
        position = state[index, 0].item()
        picture = canvas.blank(extent=1.0)
        path = [_place(x) for x in np.linspace(MIN_POSITION, MAX_POSITION, 41).tolist()]
        for start, end in itertools.pairwise(path):
            picture = canvas.segment(picture, start, end, 0.025, canvas.DARK)
        foot_x, foot_y = _place(GOAL)
        top = (foot_x, foot_y + 0.28)
        picture = canvas.segment(picture, (foot_x, foot_y), top, 0.02, canvas.DARK)
        flag = (foot_x + 0.1, foot_y + 0.24)
        picture = canvas.segment(picture, (foot_x + 0.02, foot_y + 0.24), flag, 0.08, canvas.GREEN)
        return _car(picture, position).rgb()


def _place(position: float) -> canvas.Point:
    """The picture's coordinates of a position on the hills, whose height is ``sin 3x``."""
    return position + 0.3, 0.45 * math.sin(3 * position) - 0.1


def _car(picture: canvas.Canvas, position: float) -> canvas.Canvas:
    """Draws the car on its two wheels, parallel to the slope."""
    x, y = _place(position)
    slope = math.atan(1.35 * math.cos(3 * position))

    def at(along: float, above: float) -> canvas.Point:
        return (
            x + along * math.cos(slope) - above * math.sin(slope),
            y + along * math.sin(slope) + above * math.cos(slope),
        )

    picture = canvas.segment(picture, at(-0.06, 0.1), at(0.06, 0.1), 0.08, canvas.BLUE)
    for side in (-0.06, 0.06):
        picture = canvas.disc(picture, at(side, 0.05), 0.04, canvas.DARK)
    return picture
