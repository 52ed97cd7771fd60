"""A one-legged hopper in a vertical plane, to hop forwards without falling."""

import itertools
import math
from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.rendering import canvas
from pgtoolkit.envs.rendering.canvas import Canvas, Point

BODY_MASS, BODY_INERTIA, FOOT_MASS, GRAVITY = 5.0, 0.3, 0.5, 9.81
"""Units: kg, kg m^2, kg and m/s^2."""
LEG_LENGTH, LEG_STIFFNESS, LEG_DAMPING = 0.5, 1100.0, 10.0
"""``L_0`` in m, ``k`` in N/m and ``c`` in N s/m."""
MAX_FORCE, MAX_TORQUE = 60.0, 6.0
"""Units: N and N m."""
GROUND_STIFFNESS, GROUND_DISSIPATION, GROUND_ONSET_DEPTH = 6000.0, 0.5, 0.005
"""``k_g`` in N/m, ``c_g`` in s/m and ``w`` in m."""
FRICTION, SLIP_SPEED = 0.8, 0.05
"""``mu``, and ``s_0`` in m/s."""
DT, SUBSTEPS = 0.04, 8
"""The time of a step in s, and the Euler steps in it."""
MIN_BODY_HEIGHT, MAX_PITCH = 0.3, 0.8
"""The bounds beyond which the hopper has fallen, in m and rad."""


@final
class Hopper2D(DifferentiableEnv[Tensor]):
    """A body on a springy leg with a small foot: two masses and a pitch, five degrees of freedom.

    State ``[N, 10]``: the body's ``x`` and ``z``, its pitch ``theta``, the foot's ``x`` and ``z``,
    and the five speeds; ``z`` is upwards, ``theta`` counter-clockwise. With the actions ``a``
    clamped to [-1, 1], the length ``L`` of the leg, its direction ``u`` from the foot to the body
    and ``n`` a quarter turn further::

        F = k (L_0 - L) - c L' + 60 a_1           along the leg
        tau = 6 a_2                               of the body on the leg, at the hip
        m p'' = F u + tau / L n - m g e_z
        m_f f'' = -F u - tau / L n - m_f g e_z + ground
        I theta'' = -tau
        reward = 1 - (theta / 0.8)^2 - l^2 + x' - 0.1 |a|^2

    The reward is of the state after the step, with ``l = max(0.5 m - z, 0) / 0.2 m``: the part for
    standing decreases to 0 towards either kind of fall, so that its derivative leads away from one.
    The hip is the body's centre of mass. At a depth ``h`` of the foot, the ground pushes up with
    ``N = k_g h^2 / (h + w) max(1 - c_g f_z', 0)``, a spring with a smooth onset ``w`` and the
    damping of Hunt and Crossley. At a sliding speed ``s`` its friction is ``mu N s / sqrt(s^2 +
    s_0^2)``. ``m = 5`` kg, ``I = 0.3`` kg m^2, ``m_f = 0.5`` kg, ``L_0 = 0.5`` m, ``k = 1100`` N/m,
    ``c = 10`` N s/m, ``k_g = 6000`` N/m, ``w = 5`` mm, ``c_g = 0.5`` s/m, ``mu = 0.8``, ``s_0 =
    0.05`` m/s. A step of 0.04 s is 8 semi-implicit Euler steps, implicit in the ground's damping
    and friction.

    Observation ``[N, 9]``: ``z``, ``theta``, the foot relative to the body, the body's three
    speeds, the foot's relative to the body's. Starts just above the ground, nearly at rest and
    upright. 200 steps (8 seconds). **Terminal** on a fall: ``z < 0.3`` m or ``|theta| > 0.8`` rad.

    The derivative is that of the program as executed. Forces are continuous in the state, and
    smooth except where the ground would pull, but every touchdown multiplies derivatives. That a
    fall ends the episode, and so the later rewards, has no pathwise derivative: only the estimate
    of a value function at the end of a window, or the score function, can account for it.

    Source: the planar hopper of Raibert (1986), "Legged Robots That Balance", with a springy leg
    as in Blickhan (1989), "The spring-mass model for running and hopping".
    """

    max_episode_steps = 200
    gradient = GradientInfo(contacts="smooth")

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (9,), np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        unit = 2 * torch.rand(num_envs, 6, generator=generator, device=generator.device) - 1
        lean, pitch = 0.1 * unit[:, 0], 0.1 * unit[:, 1]
        foot = 0.05 + 0.05 * unit[:, 2]
        x = torch.zeros_like(lean)
        z = foot + LEG_LENGTH * torch.cos(lean)
        speed, rise, spin = (0.2 * unit[:, 3:]).unbind(-1)
        foot_x = LEG_LENGTH * torch.sin(lean)
        return torch.stack([x, z, pitch, foot_x, foot, speed, rise, spin, speed, rise], -1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        action, dt = action.clamp(-1.0, 1.0), DT / SUBSTEPS
        place, speed = state.chunk(2, dim=-1)
        for _ in range(SUBSTEPS):
            free = speed + dt * leg_acceleration(place, speed, action)
            speed = touch_ground(place, free, dt)
            place = place + dt * speed
        return torch.cat([place, speed], -1)

    def observation(self, state: Tensor) -> Tensor:
        place, speed = state.chunk(2, dim=-1)
        parts = [place[:, 1:3], place[:, 3:] - place[:, :2], speed[:, :3]]
        return torch.cat([*parts, speed[:, 3:] - speed[:, :2]], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        z, pitch, speed = next_state[:, 1], next_state[:, 2], next_state[:, 5]
        low = (LEG_LENGTH - z).clamp(min=0.0) / (LEG_LENGTH - MIN_BODY_HEIGHT)
        standing = 1 - (pitch / MAX_PITCH).square() - low.square()
        return standing + speed - 0.1 * action.clamp(-1.0, 1.0).square().sum(-1)

    def terminal(self, state: Tensor) -> Tensor:
        return (state[:, 1] < MIN_BODY_HEIGHT) | (state[:, 2].abs() > MAX_PITCH)

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The body with its pitch, the leg as a coil, and marks on the ground every half metre."""
        x, z, pitch, foot_x, foot_z = state[index, :5].tolist()
        level = -0.55  # the ground's height in the picture, which moves along with the body
        picture = _ground(canvas.blank(extent=0.9), x, level)
        hip, foot = (0.0, level + z), (foot_x - x, level + foot_z)
        picture = _coil(picture, foot, hip)
        picture = canvas.disc(picture, foot, 0.04, canvas.DARK)
        across, up = (math.cos(pitch), math.sin(pitch)), (-math.sin(pitch), math.cos(pitch))
        ends = [(hip[0] + side * across[0], hip[1] + side * across[1]) for side in (-0.2, 0.2)]
        picture = canvas.segment(picture, ends[0], ends[1], 0.2, canvas.BLUE)
        head = hip[0] + 0.2 * across[0] + 0.05 * up[0], hip[1] + 0.2 * across[1] + 0.05 * up[1]
        picture = canvas.disc(picture, head, 0.025, canvas.BACKGROUND)
        return canvas.disc(picture, hip, 0.03, canvas.DARK).rgb()


def leg_acceleration(place: Tensor, speed: Tensor, action: Tensor) -> Tensor:
    """Accelerations ``[N, 5]`` by the leg, the hip and gravity, without the ground.

    Args:
        place: ``[N, 5]`` the body's ``x`` and ``z``, its pitch, the foot's ``x`` and ``z``.
        speed: ``[N, 5]`` their rates of change.
        action: ``[N, 2]`` within [-1, 1].
    """
    leg, stretch = place[:, :2] - place[:, 3:], speed[:, :2] - speed[:, 3:]
    length = torch.sqrt(leg.square().sum(-1, keepdim=True) + 1e-12)
    along = leg / length
    across = torch.stack([-along[:, 1], along[:, 0]], -1)
    spring = LEG_STIFFNESS * (LEG_LENGTH - length)
    force = spring - LEG_DAMPING * (stretch * along).sum(-1, keepdim=True)
    torque = MAX_TORQUE * action[:, 1:]
    push = (force + MAX_FORCE * action[:, :1]) * along + torque / length * across
    fall = push.new_tensor([0.0, GRAVITY])
    return torch.cat(
        [push / BODY_MASS - fall, -torque / BODY_INERTIA, -push / FOOT_MASS - fall], -1
    )


def touch_ground(place: Tensor, speed: Tensor, dt: float) -> Tensor:
    """The speeds ``[N, 5]`` after ``dt`` seconds of the ground's forces on the foot.

    Damping and friction are implicit, at the speed after the step: however large their coefficients
    are, they bring a foot to rest and do not reverse it.
    """
    depth, slide, rise = (-place[:, 4]).clamp(min=0.0), speed[:, 3], speed[:, 4]
    normal = GROUND_STIFFNESS * depth.square() / (depth + GROUND_ONSET_DEPTH)
    damping = 1 + dt / FOOT_MASS * GROUND_DISSIPATION * normal
    normal = normal * (1 - GROUND_DISSIPATION * rise).clamp(min=0.0) / damping
    grip = dt / FOOT_MASS * FRICTION * normal / torch.sqrt(slide.square() + SLIP_SPEED**2)
    foot = torch.stack([slide / (1 + grip), rise + dt / FOOT_MASS * normal], -1)
    return torch.cat([speed[:, :3], foot], -1)


def _ground(picture: Canvas, x: float, level: float) -> Canvas:
    """Draws the ground at height ``level``, with a mark every half metre, a green one at 0."""
    extent = picture.extent
    edge = (-extent, level - 0.01), (extent, level - 0.01)
    picture = canvas.segment(picture, edge[0], edge[1], 0.02, canvas.DARK)
    for tick in range(math.ceil(2 * (x - extent)), math.floor(2 * (x + extent)) + 1):
        at, colour = tick / 2 - x, canvas.LIGHT if tick else canvas.GREEN
        picture = canvas.segment(picture, (at, level - 0.15), (at, level - 0.06), 0.025, colour)
    return picture


def _coil(picture: Canvas, foot: Point, hip: Point) -> Canvas:
    """Draws the leg as a zigzag from the foot to the hip."""
    leg = np.subtract(hip, foot)
    across = np.array([-leg[1], leg[0]]) / max(math.hypot(*leg), 1e-6)
    sides = [0.0, 0.0, 1.0, -1.0, 1.0, -1.0, 1.0, 0.0, 0.0]
    points = [
        np.asarray(foot) + share * leg + 0.045 * side * across
        for share, side in zip(np.linspace(0.0, 1.0, len(sides)), sides, strict=True)
    ]
    for start, end in itertools.pairwise(points):
        picture = canvas.segment(picture, tuple(start), tuple(end), 0.022, canvas.DARK)
    return picture
