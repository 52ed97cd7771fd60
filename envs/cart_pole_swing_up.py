"""Swing a pole up from below a cart, and keep it there."""

import math
from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.cart_picture import cart_on_track, rod
from pgtoolkit.envs.cart_pole import HALF_LENGTH, MAX_FORCE, cart_pole_accelerations
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.pendulum import wrap_angle

DT = 1 / 60


@final
class CartPoleSwingUp(DifferentiableEnv[Tensor]):
    """State ``[N, 4]``: ``x``, ``x_dot``, the pole's angle ``theta`` from upright, ``theta_dot``.

    The action ``a``, clamped to [-1, 1], is a force of ``10 a`` newtons on the cart. Accelerations
    as in :func:`cart_pole_accelerations <pgtoolkit.envs.cart_pole.cart_pole_accelerations>`, and
    semi-implicit Euler steps of ``dt = 1/60``: first the speeds, then the positions with them::

        reward = -(wrap(theta)^2 + 0.1 theta_dot^2 + 0.05 x^2 + 0.1 x_dot^2)

    of the state that the action led to; ``wrap`` maps an angle to [-pi, pi). Observation ``[x,
    x_dot, cos theta, sin theta, theta_dot]``. Starts hanging at rest, each number uniform within
    0.1 of that; 240 steps (4 seconds); never terminal: the track has no ends, only a price.

    The derivative is exact, and 0 by a force beyond its clamp. The reward has a kink where the pole
    hangs straight down: the shorter way up changes sides there.

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
        x_dot, theta_dot = x_dot + DT * x_acc, theta_dot + DT * theta_acc
        return torch.stack([x + DT * x_dot, x_dot, theta + DT * theta_dot, theta_dot], -1)

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
