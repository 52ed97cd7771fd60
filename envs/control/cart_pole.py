"""Gymnasium's CartPole-v1 with a continuous force, and the swing-up of the same pole.

A uniform rod is hinged on a cart. A force moves the cart along a straight track.
"""

import math
from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.control.trigonometry import sine_and_cosine, wrap_angle
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.rendering import canvas
from pgtoolkit.envs.rendering.cart import cart_on_track, rod

GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH = 9.8, 1.0, 0.1, 0.5
"""Units: m/s^2, kg, kg and m; ``HALF_LENGTH`` is half the pole's length."""
TOTAL_MASS, MAX_FORCE = POLE_MASS + CART_MASS, 10.0
"""Units: kg and N."""
DT, SWING_UP_DT = 0.02, 1 / 60
"""The time steps of the two environments, in s."""
MAX_X, MAX_ANGLE = 2.4, 12 * 2 * math.pi / 360
"""The bounds beyond which CartPole terminates, in m and rad."""


@final
class CartPole(DifferentiableEnv[Tensor]):
    """State and observation ``[N, 4]``: ``x``, ``x_dot``, ``theta`` from upright, ``theta_dot``.

    The action ``a``, clamped to [-1, 1], is a force of ``10 a`` newtons. Accelerations are those of
    :func:`cart_pole_accelerations`, integrated by explicit Euler steps of ``dt = 0.02`` s: the
    positions move with the old speeds, so an action moves them one step later. At ``a = -1`` and
    ``a = 1`` this reproduces the numbers of Gymnasium's CartPole, which has no forces in between.

    Ends when ``|x| > 2.4`` or ``|theta|`` is above 12 degrees; 500 steps. Starts uniform in
    [-0.05, 0.05]^4. The reward is 1 in every step, the last one included.

    The derivative of the dynamics is exact, and 0 by a force outside its bounds. The reward has no
    derivative: it counts steps, and an action changes the return only through the end of the
    episode, an event. So the pathwise gradient of the rewards is exactly 0, and only a value
    function, as that of ``shac``, can supply one.

    Source: ``gymnasium/envs/classic_control/cartpole.py``; Barto, Sutton and Anderson (1983).
    """

    max_episode_steps = 500
    gradient = GradientInfo(reward="none")

    def __init__(self) -> None:
        high = np.array([2 * MAX_X, np.inf, 2 * MAX_ANGLE, np.inf], dtype=np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return 0.1 * torch.rand(num_envs, 4, generator=generator, device=generator.device) - 0.05

    def numpy_initial(self, rng: np.random.Generator) -> Tensor:
        # The same draw as in Gymnasium's reset, so that equal seeds give equal episodes.
        return torch.from_numpy(rng.uniform(low=-0.05, high=0.05, size=(1, 4)))

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        _, x_dot, theta, theta_dot = state.unbind(-1)
        force = MAX_FORCE * action[:, 0].clamp(-1.0, 1.0)
        x_acc, theta_acc = cart_pole_accelerations(theta, theta_dot, force)
        return state + DT * torch.stack([x_dot, x_acc, theta_dot, theta_acc], -1)

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.ones_like(state[:, 0])

    def terminal(self, state: Tensor) -> Tensor:
        return (state[:, 0].abs() > MAX_X) | (state[:, 2].abs() > MAX_ANGLE)

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The cart with its pole, between red posts at the ends of the track."""
        x, _, theta, _ = state[index].tolist()
        picture, hinge = cart_on_track(x, extent=2.8, base=-0.7)
        for post in (-MAX_X, MAX_X):
            picture = canvas.segment(picture, (post, -0.7), (post, -0.4), 0.05, canvas.RED)
        return rod(picture, hinge, theta, 2 * HALF_LENGTH)[0].rgb()


@final
class CartPoleSwingUp(DifferentiableEnv[Tensor]):
    """State ``[N, 4]``: ``x``, ``x_dot``, the pole's angle ``theta`` from upright, ``theta_dot``.

    The action ``a``, clamped to [-1, 1], is a force of ``10 a`` newtons on the cart. Accelerations
    are those of :func:`cart_pole_accelerations`, integrated by semi-implicit Euler steps of ``dt =
    1/60`` s: first the speeds, then the positions with the new speeds::

        reward = -(wrap(theta)^2 + 0.1 theta_dot^2 + 0.05 x^2 + 0.1 x_dot^2)

    of the state after the step; ``wrap`` maps an angle to [-pi, pi). Observation ``[x, x_dot, cos
    theta, sin theta, theta_dot]``. Starts hanging at rest, each number uniform within 0.1 of that;
    240 steps (4 seconds); never terminal: the track has no ends, only a cost of ``x^2``.

    The derivative is exact, and 0 by a force outside its bounds. The reward has a kink where the
    pole hangs straight down, because the shorter way up changes sides there.

    Source: dynamics of Barto, Sutton and Anderson (1983), corrected by Florian (2007); reward and
    length of the episode of Xu et al. (2022), "Accelerated policy learning with parallel
    differentiable simulation", CartPole Swing Up. The masses and lengths are Gymnasium's.
    """

    max_episode_steps = 240

    def __init__(self) -> None:
        high = np.array([np.inf, np.inf, 1.0, 1.0, np.inf], dtype=np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        unit = 2 * torch.rand(num_envs, 4, generator=generator, device=generator.device) - 1
        return 0.1 * unit + unit.new_tensor([0.0, 0.0, math.pi, 0.0])

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        x, x_dot, theta, theta_dot = state.unbind(-1)
        force = MAX_FORCE * action[:, 0].clamp(-1.0, 1.0)
        x_acc, theta_acc = cart_pole_accelerations(theta, theta_dot, force)
        x_dot, theta_dot = x_dot + SWING_UP_DT * x_acc, theta_dot + SWING_UP_DT * theta_acc
        return torch.stack(
            [x + SWING_UP_DT * x_dot, x_dot, theta + SWING_UP_DT * theta_dot, theta_dot], -1
        )

    def observation(self, state: Tensor) -> Tensor:
        x, x_dot, theta, theta_dot = state.unbind(-1)
        return torch.stack([x, x_dot, torch.cos(theta), torch.sin(theta), theta_dot], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        x, x_dot, theta, theta_dot = next_state.unbind(-1)
        angle = wrap_angle(theta).square() + 0.1 * theta_dot.square()
        return -(angle + 0.05 * x.square() + 0.1 * x_dot.square())

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The cart with its pole; the view follows a cart that goes far."""
        x, _, theta, _ = state[index].tolist()
        picture, hinge = cart_on_track(x, extent=2.0, base=-0.24)
        return rod(picture, hinge, theta, 2 * HALF_LENGTH)[0].rgb()


def cart_pole_accelerations(
    theta: Tensor, theta_dot: Tensor, force: Tensor
) -> tuple[Tensor, Tensor]:
    """``(x_acc, theta_acc)`` of a cart and of a uniform rod that is hinged on it, no friction.

    ::

        u         = (F + m l theta_dot^2 sin theta) / (m + M)
        theta_acc = (g sin theta - u cos theta) / (l (4/3 - m cos^2 theta / (m + M)))
        x_acc     = u - m l theta_acc cos theta / (m + M)

    ``g = 9.8`` m/s^2, the cart ``M = 1`` kg, the rod ``m = 0.1`` kg and half its length ``l = 0.5``
    m; ``theta`` is from upright, to the right.

    Source: Barto, Sutton and Anderson (1983), as corrected by Florian (2007), "Correct equations
    for the dynamics of the cart-pole system".

    Args:
        theta: radians, ``[N]``.
        theta_dot: radians per second, ``[N]``.
        force: newtons on the cart, to the right, ``[N]``.
    """
    sine, cosine = sine_and_cosine(theta)
    moment = POLE_MASS * HALF_LENGTH
    push = (force + moment * theta_dot.square() * sine) / TOTAL_MASS
    inertia = HALF_LENGTH * (4 / 3 - POLE_MASS * cosine.square() / TOTAL_MASS)
    theta_acc = (GRAVITY * sine - cosine * push) / inertia
    return push - moment * theta_acc * cosine / TOTAL_MASS, theta_acc
