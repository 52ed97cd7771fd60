"""Every action repeated for several steps of the inner environment."""

import math
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.arguments import positive_integer
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, leaves_of, map_state, rebuild_state, where_state
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.state import Schema, anything, items, require, tensor

MAX_REPEATS = 1000
"""Most steps of one action; each is computed in every step of the wrapper."""


@final
class ActionRepeat(DifferentiableWrapper[Any]):
    """Repeats every action; the reward is the sum of the inner steps' rewards, undiscounted.

    A terminal state, or one at which the environment truncates, ends the repetition: the
    environment stays there without further reward.
    ``max_episode_steps`` is the inner one divided by ``repeat``, rounded up, so the last action may
    exceed the inner limit by up to ``repeat - 1`` steps. Derivatives are those of the inner steps
    that were taken.

    The state is a tuple: the tensors of the inner state, and the reward ``[N]`` of the step that
    led to it.

    Args:
        env: the inner environment.
        repeat: the number of inner steps for one action.

    Raises:
        RequestError: ``repeat`` is not a positive integer.
    """

    def __init__(self, env: DifferentiableEnv[Any], repeat: int) -> None:
        super().__init__(env)
        self.repeat = positive_integer("ActionRepeat", "repeat", repeat, MAX_REPEATS)
        self.max_episode_steps = math.ceil(env.max_episode_steps / self.repeat)
        if env.noise_shape is not None:
            self.noise_shape = (self.repeat, *env.noise_shape)
        # Only the type is used: whether an inner state is a tensor, or which kind of tuple.
        self._template: State = env.initial(1, torch.Generator().manual_seed(0))

    def initial(self, num_envs: int, generator: torch.Generator) -> State:
        inner: State = self.env.initial(num_envs, generator)
        return _with_reward(inner, torch.zeros(num_envs, device=generator.device))

    def transition(self, state: State, action: Tensor, noise: Tensor | None) -> State:
        inner, total = self._inner(state), torch.zeros_like(state[-1])
        ended = torch.zeros_like(total, dtype=torch.bool)
        for index in range(self.repeat):
            # Detached where the episode has ended: the derivative of the discarded step may be
            # infinite, and 0 times that is NaN.
            before = where_state(ended, map_state(Tensor.detach, inner), inner)
            given = where_state(ended, action.detach(), action)
            after = self.env.transition(before, given, None if noise is None else noise[:, index])
            reward = self.env.reward(before, given, after)
            total = torch.where(ended, total, total + reward)
            inner = where_state(ended, inner, after)
            ended = ended | self.env.terminal(inner)
            cut = self.env.truncated(inner)
            ended = ended if cut is None else ended | cut
        return _with_reward(inner, total)

    def observation(self, state: State) -> Tensor:
        return self.env.observation(self._inner(state))

    def reward(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return next_state[-1]

    def terminal(self, state: State) -> Tensor:
        return self.env.terminal(self._inner(state))

    def truncated(self, state: State) -> Tensor | None:
        return self.env.truncated(self._inner(state))

    def render(self, state: State, index: int) -> NDArray[np.uint8]:
        return self.env.render(self._inner(state), index)

    def reset_where(self, state: State, mask: Tensor, generator: torch.Generator) -> State:
        inner: State = self.env.reset_where(self._inner(state), mask, generator)
        return _with_reward(inner, torch.where(mask, torch.zeros_like(state[-1]), state[-1]))

    def state_schema(self, own: State) -> Schema:
        inner_schema = self.env.state_schema(self._inner(own))

        def check(value: Any, path: str) -> None:
            require(value, items([*[anything] * (len(own) - 1), tensor(own[-1])]), path)
            inner = tuple(value[:-1])
            inner_schema(inner[0] if isinstance(self._template, Tensor) else inner, path)

        return check

    def numpy_initial(self, rng: np.random.Generator) -> State:
        return _with_reward(self.env.numpy_initial(rng), torch.zeros(1))

    def numpy_reward(self, state: State, action: Tensor, next_state: State) -> float:
        return self.reward(state, action, next_state).item()

    def _inner(self, state: State) -> State:
        leaves = tuple(state[:-1])
        return rebuild_state(
            self._template, leaves[0] if isinstance(self._template, Tensor) else leaves
        )


def _with_reward(inner: State, reward: Tensor) -> State:
    return (*leaves_of(inner), reward)
