"""A planar arm of two links, to bring its fingertip to a target."""

import math
from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.control.integrators import rk4
from pgtoolkit.envs.control.lengths import smooth_length
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.rendering import canvas

MASS, LENGTH, DAMPING, DT = 1.0, 0.5, 0.2, 0.05
"""Units: kg, m, N m s and s."""
MAX_TORQUE = (2.0, 1.0)
"""Largest torques at the shoulder and at the elbow, in N m."""
# The constants of the mass matrix, in kg m^2. Both links are uniform rods: their centres of mass
# are in the middle, their moments of inertia are m l^2 / 12.
ALPHA = 2 * MASS * LENGTH**2 / 12 + MASS * (LENGTH / 2) ** 2 + MASS * 1.25 * LENGTH**2
BETA = MASS * LENGTH**2 / 2
DELTA = MASS * LENGTH**2 / 12 + MASS * (LENGTH / 2) ** 2
MIN_RADIUS, MAX_RADIUS = 0.2, 0.95
"""The target's distance from the shoulder is between these, in m."""
ROUNDING = 0.05
"""The radius around 0 within which the distance in the reward is rounded, in m."""


@final
class ReacherTwoLink(DifferentiableEnv[Tensor]):
    """State ``[N, 6]``: joint angles ``q_1, q_2``, their speeds, and the target ``(x, y)``.

    On a level table, with ``tau = (2 a_1, 1 a_2)`` N m and the actions ``a`` clamped to [-1, 1]::

        M(q) q'' + C(q, q') q' + c q' = tau
        M = [[alpha + 2 beta cos q_2, delta + beta cos q_2], [delta + beta cos q_2, delta]]
        C = beta sin q_2 [[-q_2', -(q_1' + q_2')], [q_1', 0]]
        reward = -(sqrt(d^2 + 0.05^2) - 0.05) - 0.01 |a|^2

    ``d`` is the distance of the fingertip from the target after the step; it is rounded at 0 to be
    differentiable there. ``alpha = 2 I + m (r^2 + l^2 + r^2)``,
    ``beta = m l r``, ``delta = I + m r^2`` for two uniform rods of ``m = 1`` kg, ``l = 0.5`` m,
    ``r = l/2``, ``I = m l^2 / 12``; damping ``c = 0.2`` N m s; one Runge-Kutta step of ``dt =
    0.05`` s.

    Observation ``[N, 10]``: the cosines and the sines of both angles, the speeds, the target, and
    the vector from the fingertip to it. Starts at rest, at uniform angles; the target is uniform
    over the ring of radii 0.2 to 0.95 m, which is within reach. 100 steps (5 seconds); never
    terminal. The derivative is exact, and 0 by an action outside its bounds.

    Source: Murray, Li and Sastry (1994), "A Mathematical Introduction to Robotic Manipulation",
    section 4.2.3, plus damping; the task is that of Gymnasium's Reacher.
    """

    max_episode_steps = 100

    def __init__(self) -> None:
        bounds = [1.0] * 4 + [np.inf] * 2 + [MAX_RADIUS] * 2 + [2 * LENGTH + MAX_RADIUS] * 2
        high = np.array(bounds, dtype=np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(num_envs, 4, generator=generator, device=generator.device)
        angles = math.pi * (2 * uniform[:, :2] - 1)
        # A point is uniform over the ring's area if the square of its radius is uniform.
        square = MIN_RADIUS**2 + (MAX_RADIUS**2 - MIN_RADIUS**2) * uniform[:, 2]
        radius, direction = torch.sqrt(square), 2 * math.pi * uniform[:, 3]
        target = torch.stack([radius * torch.cos(direction), radius * torch.sin(direction)], -1)
        return torch.cat([angles, torch.zeros_like(angles), target], -1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        torque = action.clamp(-1.0, 1.0) * action.new_tensor(MAX_TORQUE)
        joints, target = torch.split(state, [4, 2], dim=-1)

        def derivative(joints: Tensor) -> Tensor:
            angles, speeds = joints.chunk(2, dim=-1)
            return torch.cat([speeds, joint_acceleration(angles, speeds, torque)], -1)

        return torch.cat([rk4(derivative, joints, DT), target], -1)

    def observation(self, state: Tensor) -> Tensor:
        angles, speeds, target = state.chunk(3, dim=-1)
        to_target = target - fingertip(angles)
        return torch.cat([torch.cos(angles), torch.sin(angles), speeds, target, to_target], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        angles, _, target = next_state.chunk(3, dim=-1)
        distance = smooth_length(target - fingertip(angles), ROUNDING).squeeze(-1)
        return -distance - 0.01 * action.clamp(-1.0, 1.0).square().sum(-1)

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The arm, the circle of its reach, and the target as a ring."""
        first, second, _, _, x, y = state[index].tolist()
        elbow = LENGTH * math.cos(first), LENGTH * math.sin(first)
        tip = (
            elbow[0] + LENGTH * math.cos(first + second),
            elbow[1] + LENGTH * math.sin(first + second),
        )
        picture = canvas.blank(extent=1.2)
        picture = canvas.ring(picture, (0.0, 0.0), 2 * LENGTH, 0.012, canvas.LIGHT)
        picture = canvas.ring(picture, (x, y), 0.08, 0.025, canvas.GREEN)
        picture = canvas.segment(picture, (0.0, 0.0), elbow, 0.075, canvas.DARK)
        picture = canvas.segment(picture, elbow, tip, 0.06, canvas.DARK)
        for joint, radius in (((0.0, 0.0), 0.075), (elbow, 0.06)):
            picture = canvas.disc(picture, joint, radius, canvas.DARK)
            picture = canvas.disc(picture, joint, 0.4 * radius, canvas.BACKGROUND)
        return canvas.disc(picture, tip, 0.05, canvas.BLUE).rgb()


def fingertip(angles: Tensor) -> Tensor:
    """``(x, y)`` ``[N, 2]`` of the end of the second link, for joint angles ``[N, 2]``."""
    first, both = angles[:, 0], angles.sum(-1)
    x = LENGTH * (torch.cos(first) + torch.cos(both))
    return torch.stack([x, LENGTH * (torch.sin(first) + torch.sin(both))], -1)


def joint_acceleration(angles: Tensor, speeds: Tensor, torque: Tensor) -> Tensor:
    """``M(q)^-1 (tau - C(q, q') q' - c q')`` ``[N, 2]`` in rad/s^2, with the inverse written out.

    Args:
        angles: ``q`` ``[N, 2]`` in radians; the second is relative to the first link.
        speeds: ``q'`` ``[N, 2]``.
        torque: ``tau`` ``[N, 2]`` in N m.
    """
    first, second = speeds.unbind(-1)
    coupling = BETA * torch.cos(angles[:, 1])
    bend = BETA * torch.sin(angles[:, 1])
    push = torque - DAMPING * speeds
    one = push[:, 0] + bend * second * (2 * first + second)
    two = push[:, 1] - bend * first.square()
    # M's entries; its determinant is positive at every angle.
    m11, m12 = ALPHA + 2 * coupling, DELTA + coupling
    determinant = m11 * DELTA - m12.square()
    return torch.stack([DELTA * one - m12 * two, m11 * two - m12 * one], -1) / determinant[:, None]
