"""A quadrotor in space, to be caught in a tumble and held at a point."""

from typing import NamedTuple, final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.control import quaternion
from pgtoolkit.envs.control.lengths import soft_clip_length
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.rendering.quadrotor import draw_quadrotor

MASS, ARM, GRAVITY, DT = 1.0, 0.25, 9.81, 0.05
"""Units: kg, m, m/s^2 and s."""
INERTIA = (0.0625, 0.0625, 0.125)
"""The moments of inertia about the three body axes, in kg m^2."""
MAX_DISTANCE, MAX_SPEED, MAX_RATE = 3.0, 10.0, 10.0
"""Bounds of observed lengths, in m, m/s and rad/s; the state itself has none."""
YAW_PER_THRUST = 0.05
"""A rotor's torque about the vertical body axis per newton of thrust, in m."""
MIXING = (
    (1.0, 1.0, 1.0, 1.0),
    (ARM, ARM, -ARM, -ARM),
    (-ARM, ARM, ARM, -ARM),
    (-YAW_PER_THRUST, YAW_PER_THRUST, -YAW_PER_THRUST, YAW_PER_THRUST),
)
"""Maps the four rotors' thrusts to the total thrust and the torques about the three body axes."""


class QuadrotorState(NamedTuple):
    position: Tensor
    """``[N, 3]`` in metres, ``z`` upwards; the target is the origin."""
    velocity: Tensor
    """``[N, 3]`` in the world's axes, in m/s."""
    attitude: Tensor
    """``[N, 4]`` unit quaternion ``(w, x, y, z)`` that takes body axes to the world's."""
    rates: Tensor
    """``[N, 3]`` angular velocity in body axes, in rad/s."""


@final
class Quadrotor(DifferentiableEnv[QuadrotorState]):
    """A rigid body with four rotors at the corners of a square.

    With the actions ``a`` clamped to [-1, 1] and the thrusts ``f_i = m g (1 + a_i / 2) / 4``::

        [T, tau] = MIXING f
        p' = v                        m v' = T R(q) e_z - m g e_z
        q' = q (0, omega) / 2         J omega' = tau - omega x J omega
        reward = 1 - sqrt(1 + |p|^2 + 0.1 |v|^2 + 0.1 |omega|^2 + 2 (1 - R_zz)) - 0.01 |a|^2

    of the state after the step. The heading is free. Rotors 1 to 4 stand front
    left, rear left, rear right, front right, at ``(±d, ±d)`` in body axes (``x`` forward, ``y`` to
    the left), and turn in alternate senses. ``m = 1`` kg, ``d = 0.25`` m, ``J = m d^2 diag(1, 1,
    2)``: all mass at the rotors; a rotor's torque about ``z`` is 0.05 m times its thrust; ``g =
    9.81`` m/s^2, ``dt = 0.05`` s. Action 0 is the thrust of hovering.

    A step is of second order: the rates by the midpoint rule, the attitude by the exponential of
    the mean rate, so that the quaternion keeps its unit norm, the velocity by the attitude at half
    the step. The observation ``[N, 18]`` is ``-p``, ``v``, the nine entries of ``R(q)`` by rows,
    and ``omega``. ``q`` and ``-q`` are the same attitude and have the same observation. The three
    vectors are bounded to 3 m, 10 m/s and 10 rad/s by :func:`soft_clip_length
    <pgtoolkit.envs.control.lengths.soft_clip_length>`. Starts: position uniform within 1 m in each
    direction; velocity and rates normal with a standard deviation of 0.5 m/s and 0.5 rad/s in each
    direction; attitude by a normal rotation vector of 0.3 rad in each direction. 100 steps (5
    seconds); never terminal: far from the target the reward decreases linearly. The derivative is
    exact, and 0 by an action outside its bounds.

    Source: Mellinger and Kumar (2011), "Minimum snap trajectory generation and control for
    quadrotors", equations 2 to 4, with the rotors on the diagonals.
    """

    max_episode_steps = 100

    def __init__(self) -> None:
        bounds = [MAX_DISTANCE] * 3 + [MAX_SPEED] * 3 + [1.0] * 9 + [MAX_RATE] * 3
        high = np.array(bounds, dtype=np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (4,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> QuadrotorState:
        device = generator.device
        position = 2 * torch.rand(num_envs, 3, generator=generator, device=device) - 1
        velocity, rates, turn = torch.randn(
            3, num_envs, 3, generator=generator, device=device
        ).unbind(0)
        attitude = quaternion.exponential(0.3 * turn)
        return QuadrotorState(position, 0.5 * velocity, attitude, 0.5 * rates)

    def transition(
        self, state: QuadrotorState, action: Tensor, noise: Tensor | None
    ) -> QuadrotorState:
        thrust = MASS * GRAVITY / 4 * (1 + action.clamp(-1.0, 1.0) / 2)
        wrench = thrust @ thrust.new_tensor(MIXING).mT
        return rigid_body_step(state, wrench, DT)

    def observation(self, state: QuadrotorState) -> Tensor:
        rotation = quaternion.rotation_matrix(state.attitude).flatten(-2)
        to_target = soft_clip_length(-state.position, MAX_DISTANCE)
        velocity = soft_clip_length(state.velocity, MAX_SPEED)
        rates = soft_clip_length(state.rates, MAX_RATE)
        return torch.cat([to_target, velocity, rotation, rates], -1)

    def reward(self, state: QuadrotorState, action: Tensor, next_state: QuadrotorState) -> Tensor:
        position, velocity, attitude, rates = next_state
        tilt = 1 - quaternion.body_z(attitude)[:, 2]
        speeds = velocity.square().sum(-1) + rates.square().sum(-1)
        cost = position.square().sum(-1) + 0.1 * speeds + 2 * tilt
        effort = action.clamp(-1.0, 1.0).square().sum(-1)
        return 1 - torch.sqrt(1 + cost) - 0.01 * effort

    def terminal(self, state: QuadrotorState) -> Tensor:
        return torch.zeros_like(state.position[:, 0], dtype=torch.bool)

    def render(self, state: QuadrotorState, index: int) -> NDArray[np.uint8]:
        """The quadrotor in perspective from above, its shadow on the ground, and the target."""
        rotation = quaternion.rotation_matrix(state.attitude[index : index + 1])[0]
        return draw_quadrotor(state.position[index].tolist(), rotation.tolist(), ARM)


def rigid_body_step(state: QuadrotorState, wrench: Tensor, dt: float) -> QuadrotorState:
    """The state after ``dt`` seconds by the equations of :class:`Quadrotor`.

    Args:
        state: the state before the step.
        wrench: ``[N, 4]`` thrust along the body's ``z`` axis in newtons, then the torque about the
            body's axes in newton metres; constant over the step.
        dt: the time of the step, in seconds.
    """
    position, velocity, attitude, rates = state
    thrust, torque = torch.split(wrench, [1, 3], dim=-1)
    middle_rates = rates + dt / 2 * angular_acceleration(rates, torque)
    next_rates = rates + dt * angular_acceleration(middle_rates, torque)
    # The turn of half a step, applied twice: the thrust acts along the attitude in the middle.
    half = quaternion.exponential(dt / 4 * (rates + next_rates))
    halfway = quaternion.product(attitude, half)
    next_attitude = quaternion.normalized(quaternion.product(halfway, half))
    acceleration = thrust / MASS * quaternion.body_z(halfway)
    acceleration = acceleration - acceleration.new_tensor([0.0, 0.0, GRAVITY])
    next_velocity = velocity + dt * acceleration
    next_position = position + dt / 2 * (velocity + next_velocity)
    return QuadrotorState(next_position, next_velocity, next_attitude, next_rates)


def angular_acceleration(rates: Tensor, torque: Tensor) -> Tensor:
    """Euler's equation: ``J^-1 (tau - omega x J omega)`` ``[N, 3]``."""
    inertia = rates.new_tensor(INERTIA)
    gyroscopic: Tensor = torch.linalg.cross(rates, inertia * rates)
    return (torque - gyroscopic) / inertia
