"""A quadrotor in a vertical plane, to be held at a point or flown from point to point."""

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.arguments import require_finite
from pgtoolkit.envs.control.lengths import soft_clip_length
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.rendering import canvas
from pgtoolkit.envs.rendering.canvas import Canvas, Point
from pgtoolkit.errors import RequestError

MASS, ARM, INERTIA, GRAVITY, DT = 1.0, 0.3, 0.09, 9.81, 0.05
"""Units: kg, m, kg m^2, m/s^2 and s."""
STEPS_PER_WAYPOINT = 100
MAX_DISTANCE, MAX_SPEED, MAX_RATE = 3.0, 10.0, 10.0
"""Bounds of observed lengths, in m, m/s and rad/s; the state itself has none."""


class PlanarQuadrotorState(NamedTuple):
    body: Tensor
    """``[N, 6]``: ``x``, ``z`` upwards, the angle ``phi``, counter-clockwise, and their speeds."""
    time: Tensor
    """``[N]`` steps since the start, an integer. It determines which way-point is the target."""


@final
class PlanarQuadrotor(DifferentiableEnv[PlanarQuadrotorState]):
    """Two rotors on a rod. They lift along its normal, so it must tilt to go sideways.

    With the actions ``a`` clamped to [-1, 1], the right rotor's thrust ``u_1 = m g (1 + a_1 / 2) /
    2`` and the left one's ``u_2`` likewise::

        m x'' = -(u_1 + u_2) sin phi
        m z'' = (u_1 + u_2) cos phi - m g
        I phi'' = r (u_1 - u_2)
        reward = 1 - sqrt(1 + |e|^2 + 0.1 |v|^2 + 0.1 phi'^2 + 2 (1 - cos phi)) - 0.01 |a|^2

    of the state after the step, where ``e`` is the vector to the target and ``v`` the velocity:
    quadratic near the target, linear far away. ``m = 1`` kg, ``r = 0.3`` m, ``I = m r^2``, ``g =
    9.81`` m/s^2, ``dt = 0.05`` s. Action 0 is the thrust of hovering. A step first turns at a
    constant angular acceleration, then accelerates along the angle at half the step. That is of
    second order, and exact while it does not turn.

    Each way-point is the target for 100 steps (5 seconds), one after the other, then the episode
    ends. With one way-point the task is to hover there. Observation ``[e_x, e_z, cos phi, sin phi,
    x', z', phi']``. If there are several way-points it has two more entries: the vector from the
    present one to the next, times the elapsed fraction of the present one's time. Distances are
    bounded to 3 m, the velocity to 10 m/s and ``phi'`` to 10 rad/s by :func:`soft_clip_length
    <pgtoolkit.envs.control.lengths.soft_clip_length>`. Starts at rest, level, within 1 m of the
    first way-point in each direction; never terminal. The derivative is exact, and 0 by an action
    outside its bounds.

    Source: Tedrake, "Underactuated Robotics" (2023), chapter 3, the planar quadrotor.

    Args:
        waypoints: the coordinates ``(x, z)`` of each, in metres.

    Raises:
        RequestError: the way-points are not pairs of finite numbers, or there are none.
    """

    def __init__(self, waypoints: Sequence[Sequence[float]] = ((0.0, 0.0),)) -> None:
        self.waypoints = _checked_waypoints(waypoints)
        self.max_episode_steps = STEPS_PER_WAYPOINT * len(self.waypoints)
        size = 7 if len(self.waypoints) == 1 else 9
        bounds = [MAX_DISTANCE] * 2 + [1.0] * 2 + [MAX_SPEED] * 2 + [MAX_RATE] + [MAX_DISTANCE] * 2
        high = np.array(bounds, dtype=np.float32)[:size]
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> PlanarQuadrotorState:
        unit = 2 * torch.rand(num_envs, 2, generator=generator, device=generator.device) - 1
        position = unit + unit.new_tensor(self.waypoints[0])
        body = torch.cat([position, unit.new_zeros(num_envs, 4)], -1)
        time = torch.zeros(num_envs, dtype=torch.int64, device=generator.device)
        return PlanarQuadrotorState(body, time)

    def transition(
        self, state: PlanarQuadrotorState, action: Tensor, noise: Tensor | None
    ) -> PlanarQuadrotorState:
        return PlanarQuadrotorState(planar_flight(state.body, action, DT), state.time + 1)

    def observation(self, state: PlanarQuadrotorState) -> Tensor:
        position, phi, velocity, omega = torch.split(state.body, [2, 1, 2, 1], dim=-1)
        parts = [
            soft_clip_length(self._target(state, 0) - position, MAX_DISTANCE),
            torch.cos(phi),
            torch.sin(phi),
            soft_clip_length(velocity, MAX_SPEED),
            soft_clip_length(omega, MAX_RATE),
        ]
        if len(self.waypoints) > 1:
            elapsed = (state.time % STEPS_PER_WAYPOINT).to(phi.dtype) / STEPS_PER_WAYPOINT
            to_next = self._target(state, 1) - self._target(state, 0)
            parts.append(soft_clip_length(elapsed.unsqueeze(-1) * to_next, MAX_DISTANCE))
        return torch.cat(parts, -1)

    def reward(
        self, state: PlanarQuadrotorState, action: Tensor, next_state: PlanarQuadrotorState
    ) -> Tensor:
        # The target that the policy observed, also in the last step before it changes.
        away = next_state.body[:, :2] - self._target(state, 0)
        phi, speeds = next_state.body[:, 2], next_state.body[:, 3:]
        cost = away.square().sum(-1) + 0.1 * speeds.square().sum(-1) + 2 * (1 - torch.cos(phi))
        effort = action.clamp(-1.0, 1.0).square().sum(-1)
        return 1 - torch.sqrt(1 + cost) - 0.01 * effort

    def terminal(self, state: PlanarQuadrotorState) -> Tensor:
        return torch.zeros_like(state.time, dtype=torch.bool)

    def render(self, state: PlanarQuadrotorState, index: int) -> NDArray[np.uint8]:
        """The quadrotor and its way-points, the present one in green; the view moves along."""
        x, z, phi = state.body[index, :3].tolist()
        now = min(int(state.time[index]) // STEPS_PER_WAYPOINT, len(self.waypoints) - 1)
        room = 1.2 + max(abs(c) for point in self.waypoints for c in point)
        view = x - min(max(x, -room), room), z - min(max(z, -room), room)
        picture = canvas.blank(extent=room + 0.6)
        for number, point in enumerate(self.waypoints):
            colour = canvas.GREEN if number == now else canvas.LIGHT
            at = point[0] - view[0], point[1] - view[1]
            picture = canvas.ring(picture, at, 0.16, 0.04, colour)
        return _draw_body(picture, (x - view[0], z - view[1]), phi).rgb()

    def _target(self, state: PlanarQuadrotorState, offset: int) -> Tensor:
        """``[N, 2]`` the way-point ``offset`` after the present one, at most the last one."""
        number = state.time // STEPS_PER_WAYPOINT + offset
        points = state.body.new_tensor(self.waypoints)
        return points[number.clamp(max=len(self.waypoints) - 1)]


def planar_flight(body: Tensor, action: Tensor, dt: float) -> Tensor:
    """The body's state ``[N, 6]`` after ``dt`` seconds by :class:`PlanarQuadrotor`'s equations."""
    position, phi, velocity, omega = torch.split(body, [2, 1, 2, 1], dim=-1)
    right, left = (MASS * GRAVITY / 2 * (1 + action.clamp(-1.0, 1.0) / 2)).chunk(2, dim=-1)
    next_omega = omega + dt * ARM / INERTIA * (right - left)
    turn = dt / 2 * (omega + next_omega)
    middle, lift = phi + turn / 2, (right + left) / MASS
    acceleration = torch.cat([-lift * torch.sin(middle), lift * torch.cos(middle) - GRAVITY], -1)
    next_velocity = velocity + dt * acceleration
    next_position = position + dt / 2 * (velocity + next_velocity)
    return torch.cat([next_position, phi + turn, next_velocity, next_omega], -1)


def _draw_body(picture: Canvas, at: Point, phi: float) -> Canvas:
    """Draws the rod, and at each end a mast with the blades of a rotor."""
    along, up = (math.cos(phi), math.sin(phi)), (-math.sin(phi), math.cos(phi))
    for side in (-ARM, ARM):
        arm = at[0] + side * along[0], at[1] + side * along[1]
        hub = arm[0] + 0.1 * up[0], arm[1] + 0.1 * up[1]
        left = hub[0] - 0.2 * along[0], hub[1] - 0.2 * along[1]
        right = hub[0] + 0.2 * along[0], hub[1] + 0.2 * along[1]
        picture = canvas.segment(picture, at, arm, 0.07, canvas.DARK)
        picture = canvas.segment(picture, arm, hub, 0.04, canvas.DARK)
        picture = canvas.segment(picture, left, right, 0.035, canvas.BLUE)
    return canvas.disc(picture, at, 0.1, canvas.DARK)


def _checked_waypoints(waypoints: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    try:
        pairs = tuple((float(x), float(z)) for x, z in waypoints)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"PlanarQuadrotor's waypoints are {waypoints!r}: give a list of pairs [x, z]"
        ) from error
    if not pairs:
        raise RequestError("PlanarQuadrotor's waypoints are empty: give at least one pair [x, z]")
    for x, z in pairs:
        require_finite("PlanarQuadrotor", waypoint_x=x, waypoint_z=z)
    return pairs
