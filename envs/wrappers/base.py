"""The base class of wrappers around a differentiable environment."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import S
from pgtoolkit.state import Schema


class DifferentiableWrapper(DifferentiableEnv[S]):
    """Delegates everything to the inner environment. A wrapper overrides what it changes.

    Wrappers can be nested: the innermost acts first on values, and last on gradients.

    Args:
        env: the inner environment.
    """

    def __init__(self, env: DifferentiableEnv[S]) -> None:
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.max_episode_steps = env.max_episode_steps
        self.gradient, self.noise_shape = env.gradient, env.noise_shape

    @property
    def unwrapped(self) -> DifferentiableEnv[Any]:
        """The innermost environment, inside all wrappers."""
        inner = self.env
        return inner.unwrapped if isinstance(inner, DifferentiableWrapper) else inner

    def initial(self, num_envs: int, generator: torch.Generator) -> S:
        return self.env.initial(num_envs, generator)

    def transition(self, state: S, action: Tensor, noise: Tensor | None) -> S:
        return self.env.transition(state, action, noise)

    def observation(self, state: S) -> Tensor:
        return self.env.observation(state)

    def reward(self, state: S, action: Tensor, next_state: S) -> Tensor:
        return self.env.reward(state, action, next_state)

    def terminal(self, state: S) -> Tensor:
        return self.env.terminal(state)

    def truncated(self, state: S) -> Tensor | None:
        return self.env.truncated(state)

    def render(self, state: S, index: int) -> NDArray[np.uint8]:
        return self.env.render(state, index)

    def reset_where(self, state: S, mask: Tensor, generator: torch.Generator) -> S:
        return self.env.reset_where(state, mask, generator)

    def begin_window(self) -> None:
        self.env.begin_window()

    def metrics(self) -> dict[str, Tensor]:
        return self.env.metrics()

    def state_dict(self) -> dict[str, Any]:
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env.load_state_dict(state)

    def state_schema(self, own: S) -> Schema:
        return self.env.state_schema(own)

    def numpy_initial(self, rng: np.random.Generator) -> S:
        return self.env.numpy_initial(rng)

    def numpy_action(self, action: NDArray[Any], dtype: torch.dtype) -> Tensor:
        return self.env.numpy_action(action, dtype)

    def numpy_reward(self, state: S, action: Tensor, next_state: S) -> float:
        return self.env.numpy_reward(state, action, next_state)
