"""One action for several steps of the environment."""

import math
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, map_state, rebuild_state, where_state
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.errors import RequestError


@final
class ActionRepeat(DifferentiableWrapper[Any]):
    """Repeats every action; the reward is the sum of the inner steps' rewards, undiscounted.

    A terminal state within stops the repetition: the environment stays there, and earns no more.
    ``max_episode_steps`` is the inner one divided by ``repeat``, rounded up, so the last action may
    run over the inner limit by up to ``repeat - 1`` steps. Derivatives are those of the inner
    steps, one after the other; an environment that has stopped is left out of them.

    The state is the inner state's tensors, and the reward ``[N]`` that was earned on the way to it.

    Args:
        env: the inner environment.
        repeat: inner steps of one action.

    Raises:
        RequestError: ``repeat`` is less than 1.
    """

    def __init__(self, env: DifferentiableEnv[Any], repeat: int) -> None:
        super().__init__(env)
        if repeat < 1:
            raise RequestError(f"ActionRepeat's repeat is {repeat}: it must be at least 1")
        self.repeat = repeat
        self.max_episode_steps = math.ceil(env.max_episode_steps / repeat)
        if env.noise_shape is not None:
            self.noise_shape = (repeat, *env.noise_shape)
        # Only its type is of interest: whether a state is a tensor, or which kind of tuple.
        self._template: State = env.initial(1, torch.Generator().manual_seed(0))

    def initial(self, num_envs: int, generator: torch.Generator) -> State:
        inner: State = self.env.initial(num_envs, generator)
        return _with_reward(inner, torch.zeros(num_envs, device=generator.device))

    def transition(self, state: State, action: Tensor, noise: Tensor | None) -> State:
        inner, total = self._inner(state), torch.zeros_like(state[-1])
        ended = torch.zeros_like(total, dtype=torch.bool)
        for index in range(self.repeat):
            # Detached where the episode has ended: the derivative of a step that is not taken may
            # be infinite, and 0 times that is NaN.
            start = where_state(ended, map_state(Tensor.detach, inner), inner)
            held = where_state(ended, action.detach(), action)
            after = self.env.transition(start, held, None if noise is None else noise[:, index])
            reward = self.env.reward(start, held, after)
            total = torch.where(ended, total, total + reward)
            inner = where_state(ended, inner, after)
            ended = ended | self.env.terminal(inner)
        return _with_reward(inner, total)

    def observation(self, state: State) -> Tensor:
        return self.env.observation(self._inner(state))

    def reward(self, state: State, action: Tensor, next_state: State) -> Tensor:
        return next_state[-1]

    def terminal(self, state: State) -> Tensor:
        return self.env.terminal(self._inner(state))

    def render(self, state: State, index: int) -> NDArray[np.uint8]:
        return self.env.render(self._inner(state), index)

    def reset(self, state: State, mask: Tensor, generator: torch.Generator) -> State:
        inner: State = self.env.reset(self._inner(state), mask, generator)
        return _with_reward(inner, torch.where(mask, torch.zeros_like(state[-1]), state[-1]))

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
    return (*((inner,) if isinstance(inner, Tensor) else inner), reward)
