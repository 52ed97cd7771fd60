"""Gymnasium's Acrobot-v1 with a continuous torque: swing two links up by the elbow."""

import math
from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.control.integrators import rk4, sine_and_cosine
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.rendering import canvas as drawing

GRAVITY, CENTRE, INERTIA, DT = 9.8, 0.5, 1.0, 0.2

MAX_SPEED_1, MAX_SPEED_2 = 4 * math.pi, 9 * math.pi

LINE = 1.0


@final
class Acrobot(DifferentiableEnv[Tensor]):
    """State ``[N, 4]``: ``theta1`` from hanging, ``theta2`` from the first link, and their speeds.

    The action, clamped to [-1, 1], is the torque at the elbow; :func:`acrobot_step` moves the
    links. At -1, 0 and 1 this is Gymnasium's Acrobot ("book" variant), whose numbers it reproduces,
    with nothing in between. Observation ``[cos theta1, sin theta1, cos theta2, sin theta2, omega1,
    omega2]``.

    Ends when the tip is above the line, at ``-cos theta1 - cos(theta1 + theta2) > 1``; 500 steps.
    Each step pays -1, the one that ends the episode 0. Starts uniform in [-0.1, 0.1]^4.

    The derivative of the dynamics is exact, and 0 by a torque beyond its clamp and through a speed
    beyond its bound. The reward has none: it counts steps, and the end is an event. The pathwise
    gradient of the rewards is exactly 0; only a value function, as of ``shac``, can bring one in.
    :class:`AcrobotSwingUp <pgtoolkit.envs.control.acrobot.AcrobotSwingUp>` pays for the height.

    Source: ``gymnasium/envs/classic_control/acrobot.py``; Sutton (1996), Sutton and Barto (1998).
    """

    max_episode_steps = 500
    gradient = GradientInfo(reward="none")

    def __init__(self) -> None:
        self.observation_space, self.action_space = acrobot_spaces()

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return 0.2 * torch.rand(num_envs, 4, generator=generator, device=generator.device) - 0.1

    def numpy_initial(self, rng: np.random.Generator) -> Tensor:
        # The very draw of Gymnasium's reset, which it rounds to float32.
        drawn = rng.uniform(low=-0.1, high=0.1, size=(1, 4)).astype(np.float32)
        return torch.from_numpy(drawn.astype(np.float64))

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return acrobot_step(state, action[:, 0].clamp(-1.0, 1.0))

    def observation(self, state: Tensor) -> Tensor:
        return acrobot_observation(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return self.terminal(next_state).to(next_state.dtype) - 1.0

    def terminal(self, state: Tensor) -> Tensor:
        return tip_height(state) > LINE

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The two links, and the line that the tip must reach."""
        return draw_acrobot(state[index]).rgb()


def acrobot_spaces() -> tuple[Box, Box]:
    """Of observations and of actions."""
    high = np.array([1.0, 1.0, 1.0, 1.0, MAX_SPEED_1, MAX_SPEED_2], dtype=np.float32)
    return Box(-high, high, dtype=np.float32), Box(-1.0, 1.0, (1,), np.float32)


def acrobot_step(state: Tensor, torque: Tensor) -> Tensor:
    """One Runge-Kutta step of 0.2 s; then angles in [-pi, pi], speeds within 4 pi and 9 pi.

    Args:
        state: ``[N, 4]``.
        torque: at the elbow, ``[N]``.
    """
    after = rk4(lambda s: acrobot_derivative(s, torque), state, DT)
    angles, speed_1, speed_2 = after[:, :2], after[:, 2], after[:, 3]
    # Subtracts whole turns, and nothing from an angle that needs none, as Gymnasium does.
    turns = torch.ceil((angles.detach().abs() - math.pi) / (2 * math.pi)).clamp(min=0.0)
    angles = angles - 2 * math.pi * turns * angles.detach().sign()
    speed_1 = speed_1.clamp(-MAX_SPEED_1, MAX_SPEED_1)
    speed_2 = speed_2.clamp(-MAX_SPEED_2, MAX_SPEED_2)
    return torch.cat([angles, torch.stack([speed_1, speed_2], -1)], -1)


def acrobot_derivative(state: Tensor, torque: Tensor) -> Tensor:
    """``d/dt [theta1, theta2, omega1, omega2]`` by Sutton and Barto's equations.

    ::

        d1   = 2 I + c^2 + 1 + c^2 + 2 c cos theta2           d2 = I + c^2 + c cos theta2
        phi2 = c g sin(theta1 + theta2)
        phi1 = -c omega2^2 sin theta2 - 2 c omega1 omega2 sin theta2 + (1 + c) g sin theta1 + phi2
        omega2' = (torque + d2/d1 phi1 - c omega1^2 sin theta2 - phi2) / (I + c^2 - d2^2/d1)
        omega1' = -(d2 omega2' + phi1) / d1

    Links of mass and length 1, their centres at ``c = 1/2``, with moments of inertia ``I = 1``
    about these, and ``g = 9.8``.

    Args:
        state: ``[N, 4]``.
        torque: at the elbow, ``[N]``.
    """
    theta1, theta2, omega1, omega2 = state.unbind(-1)
    sine, cosine = sine_and_cosine(theta2)
    # The sums in Gymnasium's order, and its cosines for sines: the motion is chaotic.
    d1 = CENTRE**2 + (1.0 + CENTRE**2 + 2 * CENTRE * cosine) + INERTIA + INERTIA
    d2 = (CENTRE**2 + CENTRE * cosine) + INERTIA
    phi2 = CENTRE * GRAVITY * sine_and_cosine(theta1 + theta2 - math.pi / 2)[1]
    whirl = -CENTRE * omega2.square() * sine - 2 * CENTRE * omega2 * omega1 * sine
    weight = (CENTRE + 1.0) * GRAVITY * sine_and_cosine(theta1 - math.pi / 2)[1]
    phi1 = whirl + weight + phi2
    pull = torque + d2 / d1 * phi1 - CENTRE * omega1.square() * sine - phi2
    acceleration2 = pull / (CENTRE**2 + INERTIA - d2.square() / d1)
    acceleration1 = -(d2 * acceleration2 + phi1) / d1
    return torch.stack([omega1, omega2, acceleration1, acceleration2], -1)


def acrobot_observation(state: Tensor) -> Tensor:
    """``[N, 6]``: cosine and sine of each angle, then the speeds."""
    sines, cosines = sine_and_cosine(state[:, :2])
    pairs = torch.stack([cosines, sines], -1).flatten(1)
    return torch.cat([pairs, state[:, 2:]], -1)


def tip_height(state: Tensor) -> Tensor:
    """``-cos theta1 - cos(theta1 + theta2)``, ``[N]`` from -2 to 2."""
    theta1, theta2 = state[:, 0], state[:, 1]
    return -sine_and_cosine(theta1)[1] - sine_and_cosine(theta2 + theta1)[1]


def draw_acrobot(state: Tensor) -> drawing.Canvas:
    """The two links of one state ``[4]``, and the line at a height of 1."""
    theta1, theta2, _, _ = state.tolist()
    elbow = (math.sin(theta1), -math.cos(theta1))
    tip = (elbow[0] + math.sin(theta1 + theta2), elbow[1] - math.cos(theta1 + theta2))
    picture = drawing.canvas(extent=2.3)
    picture = drawing.segment(picture, (-2.3, LINE), (2.3, LINE), 0.03, drawing.GREEN)
    picture = drawing.segment(picture, (0.0, 0.0), elbow, 0.16, drawing.INK)
    picture = drawing.segment(picture, elbow, tip, 0.12, drawing.BLUE)
    for joint in ((0.0, 0.0), elbow):
        picture = drawing.disc(picture, joint, 0.13, drawing.INK)
        picture = drawing.disc(picture, joint, 0.06, drawing.PAPER)
    return drawing.disc(picture, tip, 0.09, drawing.RED)


@final
class AcrobotSwingUp(DifferentiableEnv[Tensor]):
    """:class:`Acrobot` with a reward that has a derivative.

    ::

        reward = h' / 2 - 1,   h = -cos theta1 - cos(theta1 + theta2)

    It is that of the state that the action led to, from -2, hanging, to 0, upright. All else is as
    there: the equations, the observation, the starts, the torque within ±1, the end above the line
    at ``h > 1``, at most 500 steps. Every step costs something, so it pays to get there soon, and
    the length of an episode compares with Gymnasium's.

    The derivative is exact, and 0 by a torque beyond its clamp and through a speed beyond its
    bound. It does not see the end of an episode, which is an event; but it sees the height that
    leads there.
    """

    max_episode_steps = 500

    def __init__(self) -> None:
        self.observation_space, self.action_space = acrobot_spaces()

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return 0.2 * torch.rand(num_envs, 4, generator=generator, device=generator.device) - 0.1

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return acrobot_step(state, action[:, 0].clamp(-1.0, 1.0))

    def observation(self, state: Tensor) -> Tensor:
        return acrobot_observation(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return tip_height(next_state) / 2 - 1.0

    def terminal(self, state: Tensor) -> Tensor:
        return tip_height(state) > LINE

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The two links, and the line that the tip must reach."""
        return draw_acrobot(state[index]).rgb()
