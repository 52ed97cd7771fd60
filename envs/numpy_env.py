"""A differentiable environment as an ordinary Gymnasium environment on NumPy arrays."""

from typing import Any, cast, final

import gymnasium
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

from pgtoolkit.envs.differentiable import (
    DifferentiableEnv,
    can_render,
    next_state,
    require_attributes,
    require_outputs,
    require_state,
    wrong_attributes,
)
from pgtoolkit.envs.states import State, cast_state
from pgtoolkit.errors import RequestError

FloatArray = NDArray[np.float32]
FloatSpace = Space[FloatArray]


@final
class NumpyEnv(gymnasium.Env[FloatArray, FloatArray]):
    """One copy of a differentiable environment, without a graph, with Gymnasium's interface.

    All randomness comes from ``np_random``. The time limit is the environment's own, so no
    ``TimeLimit`` wrapper is needed.

    In ``action_space``, a dimension without bounds has the bounds ``[-finite_action_bound,
    finite_action_bound]``, because random sampling and Stable-Baselines3 need finite ones. Actions
    are not clipped to them.

    Args:
        env: the dynamics.
        dtype: the dtype of the computation; None is ``torch.float32``. Observations are float32 in
            any case.
        render_mode: ``"rgb_array"`` or None.
        finite_action_bound: replaces infinite bounds of the action space.

    Attributes:
        env: the dynamics, from which the gradient is available.

    Raises:
        RequestError: the environment lacks an attribute, or one is of a wrong kind, or it cannot
            render in this mode.
    """

    def __init__(
        self,
        env: DifferentiableEnv,
        *,
        dtype: torch.dtype | None = None,
        render_mode: str | None = None,
        finite_action_bound: float = 10.0,
    ) -> None:
        require_attributes(env)
        if wrong := wrong_attributes(env):
            raise RequestError("; ".join(wrong))
        modes = ["rgb_array"] if can_render(env) else []
        if render_mode is not None and render_mode not in modes:
            raise RequestError(
                f"{type(env).__name__} cannot render in mode {render_mode!r}: it has "
                f"{' and '.join(map(repr, modes)) if modes else 'no render(state, index) method'}"
            )
        self.env, self.render_mode = env, render_mode
        self.metadata = {"render_modes": modes, "render_fps": 30}
        self.observation_space = cast(FloatSpace, env.observation_space)
        self.action_space = _with_finite_bounds(env.action_space, finite_action_bound)
        self._dtype = dtype or torch.float32
        self._state: State | None = None
        self._elapsed = 0

    @torch.no_grad()
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        super().reset(seed=seed)
        initial = self.env.numpy_initial(self.np_random)
        require_state(self.env, "initial", initial)
        self._state = self._cast(initial)
        self._elapsed = 0
        return self._observe(self._state), {}

    @torch.no_grad()
    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """One step with action ``[A]``.

        Raises:
            ValueError: the action has another shape.
            ResetNeeded: before the first reset.
            RequestError: a function of the environment returned something of a wrong kind or shape.
        """
        env, state = self.env, self._current()
        if np.shape(action) != env.action_space.shape:
            raise ValueError(
                f"the action must have shape {list(env.action_space.shape)}, "
                f"not {list(np.shape(action))}"
            )
        tensor = env.numpy_action(np.asarray(action), self._dtype)
        after = next_state(env, state, tensor, self._draw_noise())
        require_state(env, "transition", after)
        reward, terminal = env.numpy_reward(state, tensor, after), env.terminal(after)
        require_outputs(env, 1, terminal=terminal)
        self._state, self._elapsed = after, self._elapsed + 1
        truncated, cut = self._elapsed >= env.max_episode_steps, env.truncated(after)
        if cut is not None:
            require_outputs(env, 1, truncated=cut)
            truncated = truncated or bool(cut.item())
        return self._observe(after), reward, bool(terminal.item()), truncated, {}

    def render(self) -> NDArray[np.uint8] | None:
        """An RGB picture ``[height, width, 3]``, or None without a render mode."""
        if self.render_mode is None:
            return None
        return self.env.render(self._current(), 0)

    def _observe(self, state: State) -> FloatArray:
        observation = self.env.observation(state)
        require_outputs(self.env, 1, observation=observation)
        found: FloatArray = observation[0].cpu().numpy().astype(np.float32)
        return found

    def _draw_noise(self) -> torch.Tensor | None:
        if self.env.noise_shape is None:
            return None
        drawn = self.np_random.standard_normal((1, *self.env.noise_shape))
        return torch.tensor(drawn, dtype=self._dtype)

    def _cast(self, state: State) -> State:
        return cast_state(state, torch.device("cpu"), self._dtype)

    def _current(self) -> State:
        if self._state is None:
            raise ResetNeeded("call reset() first: the environment has no state yet")
        return self._state


def _with_finite_bounds(space: Box, bound: float) -> FloatSpace:
    low = np.where(np.isfinite(space.low), space.low, -bound).astype(np.float32)
    high = np.where(np.isfinite(space.high), space.high, bound).astype(np.float32)
    return cast(FloatSpace, Box(low, high, dtype=np.float32))
