"""An environment that computes in float32 alone, seen from float64."""

from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.envs.checks_play import AnyDifferentiable
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, cast_state


@final
class InSingle(DifferentiableEnv[Any]):
    """Rounds what goes in to float32, and gives out float64.

    The checks compare in float64; so they see how few digits there are and allow for it.
    """

    def __init__(self, env: AnyDifferentiable) -> None:
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.max_episode_steps, self.noise_shape = env.max_episode_steps, env.noise_shape
        self.gradient = env.gradient

    def initial(self, num_envs: int, generator: torch.Generator) -> State:
        return _wide(self.env.initial(num_envs, generator))

    def transition(self, state: State, action: Tensor, noise: Tensor | None) -> State:
        noise = None if noise is None else noise.float()
        return _wide(self.env.transition(_narrow(state), action.float(), noise))

    def observation(self, state: State) -> Tensor:
        return self.env.observation(_narrow(state)).double()

    def reward(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return self.env.reward(_narrow(state), action.float(), _narrow(next_state)).double()

    def terminal(self, state: State) -> Tensor:
        return self.env.terminal(_narrow(state))

    def restart(self, state: State, mask: Tensor, generator: torch.Generator) -> State:
        return _wide(self.env.restart(_narrow(state), mask, generator))

    def begin_window(self) -> None:
        self.env.begin_window()


def _narrow(state: State) -> State:
    return cast_state(state, torch.device("cpu"), torch.float32)


def _wide(state: State) -> State:
    return cast_state(state, torch.device("cpu"), torch.float64)
