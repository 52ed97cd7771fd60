"""A finger that pushes a disc over a table with dry friction, to a target."""

import math
from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.arguments import require_at_least, require_finite
from pgtoolkit.envs.control.lengths import smooth_length, soft_clip_length
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.rendering import canvas

DISC_MASS, DISC_RADIUS, FINGER_MASS, FINGER_RADIUS = 1.0, 0.15, 0.5, 0.05
"""Masses in kg and radii in m."""
MAX_FORCE, FINGER_DAMPING, GRAVITY = 5.0, 2.5, 9.81
"""Units: N, N s/m and m/s^2."""
STIFFNESS, DISSIPATION = 2000.0, 1.0
"""Contact force: stiffness ``k`` in N/m and dissipation ``c`` in s/m."""
DT, SUBSTEPS = 0.05, 8
"""The time of a step in s, and the Euler steps in it."""
CONTACT_DISTANCE = DISC_RADIUS + FINGER_RADIUS
"""Disc and finger touch when their centres are this close, in m."""
ROUNDING = 0.05
"""The radius around 0 within which lengths in the reward are rounded, in m."""


@final
class PusherFriction(DifferentiableEnv[Tensor]):
    """State ``[N, 8]``: position and velocity of the disc, position and velocity of the finger.

    The finger is a point with viscous damping, driven by a force of ``5 a`` N, the actions ``a``
    clamped to [-1, 1]. The disc slides with Coulomb friction of ``mu m g``. They push each other
    apart along the line of their centres, with a penalty on the depth ``h`` of their overlap (Hunt
    and Crossley)::

        N = k max(h, 0) max(1 + c h', 0)
        m_f v_f' = 5 a - 2.5 v_f + N n          m v' = -N n + friction
        reward = -(|p'| + 0.2 |p_f' - b'|) - 0.01 |a|^2

    ``p'`` is the disc's position after the step, the target is the origin, and ``b = p + (R + r_f)
    p / |p|`` is the position behind the disc from which to push it there. All three lengths are
    rounded within 0.05 m of 0 to be differentiable: ``sqrt(|x|^2 + 0.05^2)``, less 0.05 in the
    first two. ``m = 1`` kg, ``R = 0.15`` m, ``m_f = 0.5`` kg, ``r_f = 0.05`` m, ``k = 2000`` N/m,
    ``c = 1`` s/m. A step of 0.05 s is 8 semi-implicit Euler steps. The disc's friction is implicit
    in its velocity and therefore exact (Moreau 1988): it reduces the speed by ``mu g dt``, or to 0.
    So the disc sticks: a force below the friction has no effect at all.

    Observation ``[N, 8]``: the vector from the disc to the target, the disc's velocity, the vector
    from disc to finger, the finger's velocity. Starts at rest: the disc uniform in direction, and
    uniform in distance between 0.3 and 0.8 m; the finger behind it, 0.05 to 0.15 m from contact,
    up to 0.3 rad off the line. 100 steps (5 seconds); never terminal.

    The derivative is that of the program as executed, and exact almost everywhere. It is 0 where
    the disc sticks or is not touched, and large where it is hit. It does not include whether a
    contact happens: ``contacts="stiff"``.

    Args:
        friction: the coefficient ``mu``.

    Raises:
        RequestError: it is negative or not finite.
    """

    max_episode_steps = 100
    gradient = GradientInfo(contacts="stiff")

    def __init__(self, friction: float = 0.3) -> None:
        require_finite("PusherFriction", friction=friction)
        require_at_least("PusherFriction", 0, friction=friction)
        self.friction = float(friction)
        self.observation_space = Box(-np.inf, np.inf, (8,), np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(num_envs, 4, generator=generator, device=generator.device)
        direction, distance = 2 * math.pi * uniform[:, 0], 0.3 + 0.5 * uniform[:, 1]
        aside, gap = 0.3 * (2 * uniform[:, 2] - 1), 0.05 + 0.1 * uniform[:, 3]
        disc = _polar(distance, direction)
        finger = disc + _polar(CONTACT_DISTANCE + gap, direction + aside)
        rest = torch.zeros_like(disc)
        return torch.cat([disc, rest, finger, rest], -1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        force, dt = MAX_FORCE * action.clamp(-1.0, 1.0), DT / SUBSTEPS
        disc, velocity, finger, speed = state.chunk(4, dim=-1)
        for _ in range(SUBSTEPS):
            push = contact_force(finger - disc, speed - velocity)
            speed = speed + dt / FINGER_MASS * (force - FINGER_DAMPING * speed + push)
            velocity = slow_down(velocity - dt / DISC_MASS * push, self.friction * GRAVITY * dt)
            disc, finger = disc + dt * velocity, finger + dt * speed
        return torch.cat([disc, velocity, finger, speed], -1)

    def observation(self, state: Tensor) -> Tensor:
        disc, velocity, finger, speed = state.chunk(4, dim=-1)
        return torch.cat([-disc, velocity, finger - disc, speed], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        disc, _, finger, _ = next_state.chunk(4, dim=-1)
        behind = disc + soft_clip_length(CONTACT_DISTANCE / ROUNDING * disc, CONTACT_DISTANCE)
        cost = smooth_length(disc, ROUNDING) + 0.2 * smooth_length(finger - behind, ROUNDING)
        return -cost.squeeze(-1) - 0.01 * action.clamp(-1.0, 1.0).square().sum(-1)

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The disc from above, the finger, and the target as a ring of the disc's size."""
        x, z, _, _, finger_x, finger_z, _, _ = state[index].tolist()
        picture = canvas.blank(extent=1.2)
        picture = canvas.ring(picture, (0.0, 0.0), DISC_RADIUS, 0.025, canvas.GREEN)
        picture = canvas.disc(picture, (0.0, 0.0), 0.025, canvas.GREEN)
        picture = canvas.disc(picture, (x, z), DISC_RADIUS, canvas.BLUE)
        picture = canvas.ring(picture, (x, z), DISC_RADIUS - 0.012, 0.024, canvas.DARK)
        return canvas.disc(picture, (finger_x, finger_z), FINGER_RADIUS, canvas.RED).rgb()


def contact_force(apart: Tensor, speed: Tensor) -> Tensor:
    """The contact force ``N n`` ``[N, 2]`` on the finger in newtons, 0 where they do not touch.

    The disc gets the opposite force.

    Args:
        apart: ``[N, 2]`` from the disc's centre to the finger's. Where it is 0, so is the force.
        speed: ``[N, 2]`` its rate of change.
    """
    distance = torch.sqrt(apart.square().sum(-1, keepdim=True) + 1e-12)
    normal = apart / distance
    overlap = (CONTACT_DISTANCE - distance).clamp(min=0.0)
    closing = -(speed * normal).sum(-1, keepdim=True)
    return STIFFNESS * overlap * (1 + DISSIPATION * closing).clamp(min=0.0) * normal


def slow_down(velocity: Tensor, loss: float) -> Tensor:
    """``v max(1 - loss / |v|, 0)`` ``[N, 2]``: dry friction reduces the speed by ``loss``, or to 0.

    It solves ``v' = v - loss sign(v')``, where the sign of 0 may be any vector of the unit disc.

    Args:
        velocity: ``v`` ``[N, 2]``.
        loss: the loss of speed, in m/s.
    """
    square = velocity.square().sum(-1, keepdim=True)
    slides = square > loss * loss
    # Where the disc sticks, 1 replaces the argument of the root, whose derivative at 0 is infinite.
    speed = torch.sqrt(torch.where(slides, square, torch.ones_like(square)))
    return torch.where(slides, velocity * (1 - loss / speed), torch.zeros_like(velocity))


def _polar(radius: Tensor, direction: Tensor) -> Tensor:
    """``[N, 2]`` from polar to Cartesian coordinates."""
    return torch.stack([radius * torch.cos(direction), radius * torch.sin(direction)], -1)
