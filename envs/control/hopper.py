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
from pgtoolkit.envs.rendering import canvas as drawing
from pgtoolkit.envs.rendering.canvas import Canvas, Point

BODY_MASS, BODY_INERTIA, FOOT_MASS, GRAVITY = 5.0, 0.3, 0.5, 9.81

LEG_LENGTH, LEG_STIFFNESS, LEG_DAMPING = 0.5, 1100.0, 10.0

MAX_FORCE, MAX_TORQUE = 60.0, 6.0

GROUND_STIFFNESS, GROUND_DISSIPATION, ONSET = 6000.0, 0.5, 0.005

FRICTION, CREEP = 0.8, 0.05

DT, SUBSTEPS = 0.04, 8

LOWEST, STEEPEST = 0.3, 0.8


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

    The reward is of the state after the step, ``l = max(0.5 m - z, 0) / 0.2 m``: what it pays for
    standing falls to 0 towards either kind of fall, so a fall is seen coming. The hip is the body's
    centre of mass. The ground pushes up with ``N = k_g h^2 / (h + w) max(1 - c_g f_z', 0)`` at a
    depth ``h`` of the foot, a spring with a smooth onset ``w`` and the damping of Hunt and
    Crossley, and holds against sliding with ``mu N s / sqrt(s^2 + s_0^2)`` at a speed ``s``. ``m =
    5`` kg, ``I = 0.3`` kg m^2, ``m_f = 0.5`` kg, ``L_0 = 0.5`` m, ``k = 1100`` N/m, ``c = 10`` N
    s/m, ``k_g = 6000`` N/m, ``w = 5`` mm, ``c_g = 0.5`` s/m, ``mu = 0.8``, ``s_0 = 0.05`` m/s. A
    step of 0.04 s is 8 semi-implicit Euler steps, implicit in the ground's damping and friction.

    Observation ``[N, 9]``: ``z``, ``theta``, the foot relative to the body, the body's three
    speeds, the foot's relative to the body's. Starts just above the ground, nearly at rest and
    upright. 200 steps (8 seconds). **Terminal** on a fall: ``z < 0.3`` m or ``|theta| > 0.8`` rad.

    The derivative is that of the program. Forces are continuous in the state, and smooth but where
    the ground would pull; yet a touchdown multiplies derivatives. That a fall ends the episode, and
    with it the rewards to come, has no pathwise derivative: the bootstrap of a value function,
    or the score function, must tell.

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
        low = (LEG_LENGTH - z).clamp(min=0.0) / (LEG_LENGTH - LOWEST)
        standing = 1 - (pitch / STEEPEST).square() - low.square()
        return standing + speed - 0.1 * action.clamp(-1.0, 1.0).square().sum(-1)

    def terminal(self, state: Tensor) -> Tensor:
        return (state[:, 1] < LOWEST) | (state[:, 2].abs() > STEEPEST)

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The body with its pitch, the leg as a coil, and marks every half metre that pass by."""
        x, z, pitch, foot_x, foot_z = state[index, :5].tolist()
        level = -0.55  # of the ground in the picture; the view moves along with the body
        picture = _ground(drawing.canvas(extent=0.9), x, level)
        hip, foot = (0.0, level + z), (foot_x - x, level + foot_z)
        picture = _coil(picture, foot, hip)
        picture = drawing.disc(picture, foot, 0.04, drawing.INK)
        across, up = (math.cos(pitch), math.sin(pitch)), (-math.sin(pitch), math.cos(pitch))
        ends = [(hip[0] + side * across[0], hip[1] + side * across[1]) for side in (-0.2, 0.2)]
        picture = drawing.segment(picture, ends[0], ends[1], 0.2, drawing.BLUE)
        head = hip[0] + 0.2 * across[0] + 0.05 * up[0], hip[1] + 0.2 * across[1] + 0.05 * up[1]
        picture = drawing.disc(picture, head, 0.025, drawing.PAPER)
        return drawing.disc(picture, hip, 0.03, drawing.INK).rgb()


def leg_acceleration(place: Tensor, speed: Tensor, action: Tensor) -> Tensor:
    """``[N, 5]`` of body, pitch and foot, by the leg, the hip and gravity, without the ground."""
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

    Damping and friction are those at the speed that they lead to: they bring a foot to rest and no
    further, however steep they are, and a foot at rest is not damped.
    """
    depth, slide, rise = (-place[:, 4]).clamp(min=0.0), speed[:, 3], speed[:, 4]
    normal = GROUND_STIFFNESS * depth.square() / (depth + ONSET)
    damping = 1 + dt / FOOT_MASS * GROUND_DISSIPATION * normal
    normal = normal * (1 - GROUND_DISSIPATION * rise).clamp(min=0.0) / damping
    grip = dt / FOOT_MASS * FRICTION * normal / torch.sqrt(slide.square() + CREEP**2)
    foot = torch.stack([slide / (1 + grip), rise + dt / FOOT_MASS * normal], -1)
    return torch.cat([speed[:, :3], foot], -1)


def _ground(picture: Canvas, x: float, level: float) -> Canvas:
    """The ground with a mark every half metre; the one at the start is green."""
    extent = picture.extent
    edge = (-extent, level - 0.01), (extent, level - 0.01)
    picture = drawing.segment(picture, edge[0], edge[1], 0.02, drawing.INK)
    for tick in range(math.ceil(2 * (x - extent)), math.floor(2 * (x + extent)) + 1):
        at, colour = tick / 2 - x, drawing.FAINT if tick else drawing.GREEN
        picture = drawing.segment(picture, (at, level - 0.15), (at, level - 0.06), 0.025, colour)
    return picture


def _coil(picture: Canvas, foot: Point, hip: Point) -> Canvas:
    """A zigzag from the foot to the hip that is pressed together with the leg."""
    leg = np.subtract(hip, foot)
    across = np.array([-leg[1], leg[0]]) / max(math.hypot(*leg), 1e-6)
    sides = [0.0, 0.0, 1.0, -1.0, 1.0, -1.0, 1.0, 0.0, 0.0]
    points = [
        np.asarray(foot) + share * leg + 0.045 * side * across
        for share, side in zip(np.linspace(0.0, 1.0, len(sides)), sides, strict=True)
    ]
    for start, end in itertools.pairwise(points):
        picture = drawing.segment(picture, tuple(start), tuple(end), 0.022, drawing.INK)
    return picture
