"""Two rods, one on top of the other, on a cart: keep both upright."""

from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.control.integrators import rk4
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.rendering.cart import cart_on_track, rod

GRAVITY, CART_MASS, ROD_MASS, LENGTH = 9.8, 1.0, 0.1, 0.5
"""Units: m/s^2, kg, kg and m."""
MAX_FORCE, DT = 10.0, 0.02
"""Units: N and s."""
MIN_TIP_HEIGHT = 1.2
"""An episode ends when the tip is lower than this above the hinge, in lengths of a rod."""
# A to G of the equations in double_pendulum_derivative.
TOTAL_MASS = CART_MASS + 2 * ROD_MASS
MOMENT_1, MOMENT_2 = 1.5 * ROD_MASS * LENGTH, 0.5 * ROD_MASS * LENGTH
INERTIA_1, INERTIA_2 = 4 / 3 * ROD_MASS * LENGTH**2, 1 / 3 * ROD_MASS * LENGTH**2
COUPLING = 0.5 * ROD_MASS * LENGTH**2


@final
class DoublePendulum(DifferentiableEnv[Tensor]):
    """State ``[N, 6]``: ``x``, the rods' angles ``theta1`` and ``theta2``, and the three speeds.

    Angles are from upright, to the right; ``theta1`` is the lower rod's. The action ``a``, clamped
    to [-1, 1], is a force of ``10 a`` newtons on the cart, held during one Runge-Kutta step of ``dt
    = 0.02`` of :func:`double_pendulum_derivative`::

        reward = 1 - (2 - cos theta1 - cos theta2 + 0.05 x^2 + 0.01 |speeds|^2)

    of the state after the step. Observation ``[x, cos theta1, sin theta1, cos theta2, sin
    theta2, x_dot, omega1, omega2]``. Starts near upright, each number uniform in [-0.1, 0.1]; ends
    when ``cos theta1 + cos theta2 < 1.2``, a tip below 0.6 m of at most 1 m; 200 steps (4 seconds).

    The derivative is exact, and 0 by a force outside its bounds. It does not include the end of an
    episode, which is an event, but it includes the angles that lead to it. Without this end, the
    rods would whirl most of the time, where the motion is chaotic and gradients are huge.

    The task is that of Gymnasium's InvertedDoublePendulum; the equations and numbers are not.
    """

    max_episode_steps = 200

    def __init__(self) -> None:
        high = np.array([np.inf, 1.0, 1.0, 1.0, 1.0, np.inf, np.inf, np.inf], dtype=np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return 0.2 * torch.rand(num_envs, 6, generator=generator, device=generator.device) - 0.1

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        force = MAX_FORCE * action[:, 0].clamp(-1.0, 1.0)
        return rk4(lambda s: double_pendulum_derivative(s, force), state, DT)

    def observation(self, state: Tensor) -> Tensor:
        angles = state[:, 1:3]
        pairs = torch.stack([torch.cos(angles), torch.sin(angles)], -1).flatten(1)
        return torch.cat([state[:, :1], pairs, state[:, 3:]], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        x, speeds = next_state[:, 0], next_state[:, 3:]
        cost = 2 - _tip_height(next_state) + 0.05 * x.square() + 0.01 * speeds.square().sum(-1)
        return 1 - cost

    def terminal(self, state: Tensor) -> Tensor:
        return _tip_height(state) < MIN_TIP_HEIGHT

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The cart with its rods; the view follows a cart that goes far."""
        x, theta1, theta2, *_ = state[index].tolist()
        picture, hinge = cart_on_track(x, extent=1.5, base=-0.7)
        picture, elbow = rod(picture, hinge, theta1, LENGTH)
        return rod(picture, elbow, theta2, LENGTH)[0].rgb()


def double_pendulum_derivative(state: Tensor, force: Tensor) -> Tensor:
    """``d/dt [x, theta1, theta2, x', omega1, omega2]``, without friction, from ``M(q) q'' = h``.

    ::

            [ A           B cos theta1      C cos theta2    ]
        M = [             D                 E cos delta     ]   symmetric, delta = theta1 - theta2
            [                               G               ]

            [ F + B omega1^2 sin theta1 + C omega2^2 sin theta2 ]
        h = [ B g sin theta1 - E omega2^2 sin delta             ]
            [ C g sin theta2 + E omega1^2 sin delta             ]

        A = M + 2 m    B = 3/2 m l    C = 1/2 m l    D = 4/3 m l^2    E = 1/2 m l^2    G = 1/3 m l^2

    The Euler-Lagrange equations of a cart of ``M = 1`` kg and two uniform rods of ``m = 0.1`` kg
    and ``l = 0.5`` m under ``g = 9.8`` m/s^2. ``x''`` is eliminated, and Cramer's rule solves the
    rest.

    Source: Bogdanov (2004), "Optimal control of a double inverted pendulum on a cart".

    Args:
        state: ``[N, 6]``, metres, radians and seconds.
        force: newtons on the cart, to the right, ``[N]``.
    """
    _, theta1, theta2, _, omega1, omega2 = state.unbind(-1)
    sin1, cos1, sin2, cos2 = theta1.sin(), theta1.cos(), theta2.sin(), theta2.cos()
    sin_delta, cos_delta = sin1 * cos2 - cos1 * sin2, cos1 * cos2 + sin1 * sin2
    square1, square2 = omega1.square(), omega2.square()
    push = force + MOMENT_1 * square1 * sin1 + MOMENT_2 * square2 * sin2
    torque1 = MOMENT_1 * GRAVITY * sin1 - COUPLING * square2 * sin_delta
    torque2 = MOMENT_2 * GRAVITY * sin2 + COUPLING * square1 * sin_delta
    lever1, lever2 = MOMENT_1 / TOTAL_MASS * cos1, MOMENT_2 / TOTAL_MASS * cos2
    torque1, torque2 = torque1 - lever1 * push, torque2 - lever2 * push
    inertia1 = INERTIA_1 - TOTAL_MASS * lever1.square()
    inertia2 = INERTIA_2 - TOTAL_MASS * lever2.square()
    shared = COUPLING * cos_delta - TOTAL_MASS * lever1 * lever2
    determinant = inertia1 * inertia2 - shared.square()
    acc1 = (inertia2 * torque1 - shared * torque2) / determinant
    acc2 = (inertia1 * torque2 - shared * torque1) / determinant
    x_acc = push / TOTAL_MASS - lever1 * acc1 - lever2 * acc2
    return torch.cat([state[:, 3:], torch.stack([x_acc, acc1, acc2], -1)], -1)


def _tip_height(state: Tensor) -> Tensor:
    """``[N]`` the tip's height above the hinge in lengths of a rod, ``cos theta1 + cos theta2``."""
    return torch.cos(state[:, 1:3]).sum(-1)
