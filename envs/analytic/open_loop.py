"""Base class and helpers of the environments whose observation is constant.

The observation is always 0, so whatever the network, the policy is one Gaussian ``u = mean + sigma
eps`` at every step: an open-loop policy. The closed forms of :class:`Chaos
<pgtoolkit.envs.analytic.chaos.Chaos>`, :class:`Step <pgtoolkit.envs.analytic.step.Step>` and
:class:`Wall <pgtoolkit.envs.analytic.wall.Wall>` hold for this policy.
"""

from typing import NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv


class OpenLoopState(NamedTuple):
    position: Tensor
    """``[N, 1]``."""
    time: Tensor
    """``[N]`` steps since the start, an integer."""


class OpenLoopEnv(DifferentiableEnv[OpenLoopState]):
    """A position on a line that the policy does not observe. A subclass moves and rewards it.

    Args:
        start: the position at time 0, equal in all environments.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._start = start
        self.observation_space = constant_observation_space()
        self.action_space = unbounded_action_space()

    def initial(self, num_envs: int, generator: torch.Generator) -> OpenLoopState:
        position = torch.full((num_envs, 1), self._start, device=generator.device)
        time = torch.zeros(num_envs, dtype=torch.int64, device=generator.device)
        return OpenLoopState(position, time)

    def observation(self, state: OpenLoopState) -> Tensor:
        return torch.zeros_like(state.position)


class OneStepEnv(OpenLoopEnv):
    """One step: the position after it is the action, and the episode terminates."""

    # This limit is never reached, because the episode terminates after 1 step. Gymnasium's env
    # checker reports a truncation in the first step as a mistake.
    max_episode_steps = 2

    def transition(
        self, state: OpenLoopState, action: Tensor, noise: Tensor | None
    ) -> OpenLoopState:
        return OpenLoopState(action, state.time + 1)

    def terminal(self, state: OpenLoopState) -> Tensor:
        return state.time >= 1


def constant_observation_space() -> Box:
    """The space of an observation ``[1]`` that is always 0. Its bounds of ±1 are arbitrary."""
    return Box(-1.0, 1.0, (1,), np.float32)


def unbounded_action_space() -> Box:
    """One action dimension without bounds, so that policies do not squash it."""
    return Box(-np.inf, np.inf, (1,), np.float32)


def indicator(x: Tensor) -> Tensor:
    """``1[x > 0]``, with a graph along which the derivative is exactly 0.

    A comparison alone has no graph at all, and a pathwise estimator would refuse it.
    """
    return torch.sign(x.clamp(min=0))
