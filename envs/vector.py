"""A differentiable environment as a Gymnasium vector environment on torch tensors."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.differentiable import (
    DifferentiableEnv,
    can_render,
    next_state,
    require_attributes,
    require_outputs,
    require_same_dtypes,
    require_state,
    require_unwritten,
    wrong_attributes,
)
from pgtoolkit.envs.states import (
    State,
    VectorState,
    cast_state,
    leaves_of,
    map_state,
    rebuild_state,
    where_state,
)
from pgtoolkit.errors import EnvFaultError, RequestError
from pgtoolkit.state import generator, items, require, tensor

NO_STATE = "call reset() first: the environments have no state yet"


@final
class DifferentiableVectorEnv(VectorEnv[Tensor, Tensor, Tensor]):
    """``N`` copies of a differentiable environment, autoreset SAME_STEP, whose steps carry a graph.

    **Gradient.** Observation and reward of a step are differentiable by the step's action and,
    through the state, by all actions since the last :meth:`detach` or :meth:`reset`. An environment
    whose episode ends continues from a new start state without a graph; the others keep theirs.

    The new start states are put into the batch row by row *before* it is observed. Choosing between
    two observations instead would also compute the derivative of the discarded observation, and
    where that is infinite (the square root at a terminal 0), multiply it by 0 into NaN.

    ``info["final_obs"]`` ``[N, O]``, present when any episode ends, is the observation before the
    reset. It carries the graph in every row except those that *terminated*, which are computed from
    the detached state: the value after a terminal state is 0, so that gradient is never used, and
    an infinite derivative there cannot become NaN. ``info["_final_obs"]`` ``[N]`` says which rows
    ended.

    Clipping, comparisons and the choice of when an episode ends are differentiated as executed:
    the moment of termination has no gradient.

    Args:
        env: the dynamics.
        num_envs: ``N``.
        device: the device of all tensors and of the generator.
        dtype: the dtype of observations, rewards and the floating-point part of the state. Use
            float64 for long horizons and gradient checks.

    Raises:
        RequestError: the environment lacks an attribute, or one is of a wrong kind.
    """

    def __init__(
        self,
        env: DifferentiableEnv,
        num_envs: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        require_attributes(env)
        if wrong := wrong_attributes(env):
            raise RequestError("; ".join(wrong))
        self.env, self.num_envs = env, num_envs
        self.device, self.dtype = torch.device(device), dtype
        self.metadata = {
            "autoreset_mode": AutoresetMode.SAME_STEP,
            "render_modes": ["rgb_array"] if can_render(env) else [],
            "render_fps": 30,
        }
        self.render_mode = "rgb_array" if can_render(env) else None
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self._generator = torch.Generator(self.device)
        self._generator.seed()  # from the system's entropy, until reset is given a seed
        self._state: State | None = None
        self._elapsed = self._zeros()
        self._has_stepped = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Starts new episodes, in all environments or where ``options["reset_mask"]`` is true.

        Args:
            seed: the new seed of the vector environment's generator; None keeps the generator's
                present state.
            options: ``reset_mask``, a boolean array or tensor ``[N]``. Other keys are ignored.

        Raises:
            ValueError: the mask has another shape.
            ResetNeeded: a mask is given before the first reset of all environments.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._generator.manual_seed(seed)
        mask = (options or {}).get("reset_mask")
        if mask is None:
            self._has_stepped = False
            self._state, self._elapsed = self._initial(), self._zeros()
        else:
            mask = torch.as_tensor(mask, dtype=torch.bool, device=self.device)
            self._require_shape("options['reset_mask']", mask, (self.num_envs,))
            self._state = self.env.reset_where(self._current(), mask, self._generator)
            self._elapsed = torch.where(mask, self._zeros(), self._elapsed)
        return self._observe(self._state), {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Steps every environment, and resets in the same step those whose episode ends.

        Args:
            actions: ``[N, A]``.

        Returns:
            observation ``[N, O]`` after any reset, reward ``[N]``, terminated ``[N]``, truncated
            ``[N]``, and info. If both flags are true, the episode terminated.

        Raises:
            ValueError: the actions have another shape.
            RequestError: a function of the environment returned a wrong shape or dtype, or wrote
                into what it was given, at the first step.
            EnvFaultError: it did so later.
            ResetNeeded: before the first reset.
        """
        env = self.env
        actions = torch.as_tensor(actions, dtype=self.dtype, device=self.device)
        self._require_shape("actions", actions, (self.num_envs, *env.action_space.shape))
        if self._state is None:
            raise ResetNeeded(NO_STATE)
        given = (*leaves_of(self._state), actions)
        versions = [x._version for x in given]
        noise = None if env.noise_shape is None else self._draw_noise(env.noise_shape)
        after = next_state(env, self._state, actions, noise)
        self._checked(require_state, "transition", after)
        self._checked(require_same_dtypes, self._state, after)
        reward = env.reward(self._state, actions, after)
        terminated = env.terminal(after)
        self._require_outputs(reward=reward, terminal=terminated)
        self._checked(require_unwritten, given, versions)
        cut = env.truncated(after)
        if cut is not None:
            self._require_outputs(truncated=cut)
        obs, truncated, info = self.finish_step(after, terminated, cut)
        self._has_stepped = True
        return obs, reward, terminated, truncated, info

    def finish_step(
        self, after: State, terminated: Tensor, truncated_by_env: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """The second half of :meth:`step`: time limits and resets, from the state after a step.

        Compiled rollouts compute the first half themselves.

        Args:
            after: the state that the step led to, with its graph.
            terminated: ``[N]`` whether the episode terminated there.
            truncated_by_env: ``[N]`` whether the environment itself truncates there, or None.

        Returns:
            observation ``[N, O]`` after any reset, truncated ``[N]``, and info, as :meth:`step`.
        """
        self._elapsed = self._elapsed + 1
        truncated = self._elapsed >= self.env.max_episode_steps
        truncated = truncated if truncated_by_env is None else truncated | truncated_by_env
        done = terminated | truncated
        info: dict[str, Any] = {}
        if bool(done.any()):
            info = {"final_obs": self._final_observation(after, terminated), "_final_obs": done}
            after = self.env.reset_where(after, done, self._generator)
            self._elapsed = torch.where(done, self._zeros(), self._elapsed)
        self._state = after
        return self._observe(after), truncated, info

    def detach(self) -> Tensor:
        """Cuts the graph at the current state; returns its observation ``[N, O]`` without a graph.

        Raises:
            ResetNeeded: before the first reset.
        """
        self._state = map_state(Tensor.detach, self._current())
        self.env.begin_window()
        return self._observe(self._state).detach()

    def get_state(self) -> VectorState:
        """The present state without its graph, from which :meth:`set_state` continues bit for bit.

        Raises:
            ResetNeeded: before the first reset.
        """
        state = self.graph_state()
        return state._replace(state=map_state(Tensor.detach, state.state))

    def graph_state(self) -> VectorState:
        """The present state with its graph, for recomputation in the backward pass.

        Raises:
            ResetNeeded: before the first reset.
        """
        return VectorState(self._current(), self._elapsed, self._generator.get_state())

    def set_state(self, state: VectorState | tuple[Any, ...]) -> None:
        """Continues from a saved state: the same actions give the same trajectories and noise.

        Args:
            state: a result of :meth:`get_state` or :meth:`graph_state`. Plain tuples and lists,
                which checkpoints restore in place of NamedTuples, are accepted.

        Raises:
            ValueError: it does not fit this environment.
        """
        inner, elapsed, generator_state = state
        template = self._state
        if template is None:
            template = self.env.initial(1, torch.Generator(self.device).manual_seed(0))
        inner = tuple(inner) if isinstance(inner, list) else inner
        rebuilt = cast_state(rebuild_state(template, inner), self.device, self.dtype)
        self._require_shape("the state's elapsed steps", elapsed, (self.num_envs,))
        self._state, self._elapsed = rebuilt, elapsed.to(self.device)
        self._generator.set_state(generator_state.cpu())

    def require_state(self, saved: Any, path: str) -> None:
        """Compares what :meth:`get_state` gave another process with the present state.

        Raises:
            StateError: it does not fit; ``path`` is its place.
        """
        own = self.get_state()
        # An episode whose elapsed steps have reached the limit has been reset already.
        longest = self.env.max_episode_steps - 1
        schemas = (
            self.env.state_schema(own.state),
            tensor(own.elapsed, low=0, high=longest),
            generator(self._generator),
        )
        require(saved, items(schemas, VectorState._fields), path)

    def render(self) -> tuple[NDArray[np.uint8], ...]:
        """An RGB picture of environment 0, as the only entry of a tuple (Gymnasium's signature).

        Raises:
            RequestError: the environment does not draw itself.
        """
        return (self.env.render(map_state(Tensor.detach, self._current()), 0),)

    def __getstate__(self) -> dict[str, Any]:
        """What ``copy.deepcopy`` and pickle take: all of it, the present state without its graph.

        Torch copies no tensor that is inside a graph; from the state alone a copy continues with
        the same bits, because every window begins with :meth:`detach`.
        """
        state = None if self._state is None else map_state(Tensor.detach, self._state)
        return self.__dict__ | {"_state": state}

    def _final_observation(self, after: State, terminated: Tensor) -> Tensor:
        detached = map_state(Tensor.detach, after)
        return self._observe(where_state(terminated, detached, after))

    def _observe(self, state: State) -> Tensor:
        observation = self.env.observation(state)
        self._require_outputs(observation=observation)
        return observation

    def _require_outputs(self, **outputs: object) -> None:
        self._checked(require_outputs, self.num_envs, dtype=self.dtype, **outputs)

    def _checked(self, check: Callable[..., None], *given: object, **outputs: object) -> None:
        """``check(env, ...)``; what was right at the first step and is not now is a fault.

        Raises:
            RequestError: an output is wrong, before the first step was taken.
            EnvFaultError: an output is wrong, after it.
        """
        try:
            check(self.env, *given, **outputs)
        except RequestError as error:
            if not self._has_stepped:
                raise
            raise EnvFaultError(str(error)) from error

    def _initial(self) -> State:
        initial: State = self.env.initial(self.num_envs, self._generator)
        self._checked(require_state, "initial", initial)
        return cast_state(initial, self.device, self.dtype)

    def _draw_noise(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(
            self.num_envs,
            *shape,
            generator=self._generator,
            device=self.device,
            dtype=self.dtype,
        )

    def _zeros(self) -> Tensor:
        return torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)

    def _current(self) -> State:
        if self._state is None:
            raise ResetNeeded(NO_STATE)
        return self._state

    def _require_shape(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {list(shape)}, not {list(tensor.shape)}")
