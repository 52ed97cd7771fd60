"""Gymnasium's Acrobot-v1 with a continuous torque, and a variant with a differentiable reward.

Two links hang from a fixed joint. A torque at the elbow swings the tip up.
"""

import math
from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.control.integrators import rk4
from pgtoolkit.envs.control.trigonometry import cosine, sine_and_cosine
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.rendering import canvas

GRAVITY, DT = 9.8, 0.2
"""Units: m/s^2 and s."""
COM, INERTIA = 0.5, 1.0
"""A link's centre of mass from its joint, in m, and the moment of inertia about it, in kg m^2."""
MAX_SPEED_1, MAX_SPEED_2 = 4 * math.pi, 9 * math.pi
"""Bounds of the two angular velocities, in rad/s."""
TARGET_HEIGHT = 1.0
"""An episode ends when the tip is higher than this above the fixed joint, in m."""


class _TwoLinks(DifferentiableEnv[Tensor]):
    """State, dynamics and spaces of the two acrobot environments; each adds its reward."""

    max_episode_steps = 500

    def __init__(self) -> None:
        high = np.array([1.0, 1.0, 1.0, 1.0, MAX_SPEED_1, MAX_SPEED_2], dtype=np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return 0.2 * torch.rand(num_envs, 4, generator=generator, device=generator.device) - 0.1

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return acrobot_step(state, action[:, 0].clamp(-1.0, 1.0))

    def observation(self, state: Tensor) -> Tensor:
        sines, cosines = sine_and_cosine(state[:, :2])
        pairs = torch.stack([cosines, sines], -1).flatten(1)
        return torch.cat([pairs, state[:, 2:]], -1)

    def terminal(self, state: Tensor) -> Tensor:
        return tip_height(state) > TARGET_HEIGHT

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The two links, and the line that the tip must cross."""
        theta1, theta2, _, _ = state[index].tolist()
        elbow = (math.sin(theta1), -math.cos(theta1))
        tip = (elbow[0] + math.sin(theta1 + theta2), elbow[1] - math.cos(theta1 + theta2))
        line = (-2.3, TARGET_HEIGHT), (2.3, TARGET_HEIGHT)
        picture = canvas.blank(extent=2.3)
        picture = canvas.segment(picture, *line, 0.03, canvas.GREEN)
        picture = canvas.segment(picture, (0.0, 0.0), elbow, 0.16, canvas.DARK)
        picture = canvas.segment(picture, elbow, tip, 0.12, canvas.BLUE)
        for joint in ((0.0, 0.0), elbow):
            picture = canvas.disc(picture, joint, 0.13, canvas.DARK)
            picture = canvas.disc(picture, joint, 0.06, canvas.BACKGROUND)
        return canvas.disc(picture, tip, 0.09, canvas.RED).rgb()


@final
class Acrobot(_TwoLinks):
    """State ``[N, 4]``: ``theta1`` from hanging, ``theta2`` from the first link, and their speeds.

    The action, clamped to [-1, 1], is the torque at the elbow in N m; :func:`acrobot_step` moves
    the links. At -1, 0 and 1 this reproduces the numbers of Gymnasium's Acrobot ("book" variant),
    which has no torques in between. Observation ``[cos theta1, sin theta1, cos theta2, sin theta2,
    omega1, omega2]``.

    Ends when the tip is above the line, at ``-cos theta1 - cos(theta1 + theta2) > 1``; 500 steps.
    Each step is rewarded by -1, the one that ends the episode by 0. Starts uniform in
    [-0.1, 0.1]^4.

    The derivative of the dynamics is exact. It is 0 by a torque outside its bounds and through a
    speed that was clamped. The reward has no derivative: it counts steps, and the end of an episode
    is an event. So the pathwise gradient of the rewards is exactly 0, and only a value function, as
    that of ``shac``, can supply one. :class:`AcrobotSwingUp` is rewarded for the height instead.

    Source: ``gymnasium/envs/classic_control/acrobot.py``; Sutton (1996), Sutton and Barto (1998).
    """

    gradient = GradientInfo(reward="none")

    def numpy_initial(self, rng: np.random.Generator) -> Tensor:
        # The same draw as in Gymnasium's reset, which it rounds to float32.
        drawn = rng.uniform(low=-0.1, high=0.1, size=(1, 4)).astype(np.float32)
        return torch.from_numpy(drawn.astype(np.float64))

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return self.terminal(next_state).to(next_state.dtype) - 1.0


@final
class AcrobotSwingUp(_TwoLinks):
    """:class:`Acrobot` with a reward that has a derivative.

    ::

        reward = h' / 2 - 1,   h = -cos theta1 - cos(theta1 + theta2)

    where ``h'`` is the tip's height after the step. The reward is from -2, hanging, to 0, upright.
    Everything else is the same: the equations, the observation, the starts, the torque within ±1,
    the end above the line at ``h > 1``, at most 500 steps. Every step has a negative reward, so
    shorter episodes are better, and their lengths can be compared with those of Gymnasium's
    Acrobot.

    The derivative is exact, and 0 by a torque outside its bounds and through a speed that was
    clamped. It does not include the end of an episode, which is an event, but it includes the
    height that leads to it.
    """

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return tip_height(next_state) / 2 - 1.0


def acrobot_step(state: Tensor, torque: Tensor) -> Tensor:
    """One Runge-Kutta step of 0.2 s; then angles in [-pi, pi], speeds within 4 pi and 9 pi.

    Args:
        state: ``[N, 4]``.
        torque: at the elbow in N m, ``[N]``.
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

    Both links have mass 1 kg and length 1 m, their centres of mass at ``c = 1/2`` m, moments of
    inertia ``I = 1`` kg m^2 about these, and ``g = 9.8`` m/s^2.

    Args:
        state: ``[N, 4]``.
        torque: at the elbow in N m, ``[N]``.
    """
    theta1, theta2, omega1, omega2 = state.unbind(-1)
    sin2, cos2 = sine_and_cosine(theta2)
    # Gymnasium's order of the sums, and its cosines in place of sines: the motion is chaotic, so
    # that another rounding would soon lead to another trajectory.
    d1 = COM**2 + (1.0 + COM**2 + 2 * COM * cos2) + INERTIA + INERTIA
    d2 = (COM**2 + COM * cos2) + INERTIA
    phi2 = COM * GRAVITY * cosine(theta1 + theta2 - math.pi / 2)
    centrifugal = -COM * omega2.square() * sin2 - 2 * COM * omega2 * omega1 * sin2
    weight = (COM + 1.0) * GRAVITY * cosine(theta1 - math.pi / 2)
    phi1 = centrifugal + weight + phi2
    net_torque = torque + d2 / d1 * phi1 - COM * omega1.square() * sin2 - phi2
    acceleration2 = net_torque / (COM**2 + INERTIA - d2.square() / d1)
    acceleration1 = -(d2 * acceleration2 + phi1) / d1
    return torch.stack([omega1, omega2, acceleration1, acceleration2], -1)


def tip_height(state: Tensor) -> Tensor:
    """``-cos theta1 - cos(theta1 + theta2)`` ``[N]``, the tip's height above the joint in m."""
    theta1, theta2 = state[:, 0], state[:, 1]
    return -cosine(theta1) - cosine(theta2 + theta1)
