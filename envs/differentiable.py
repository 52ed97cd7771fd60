"""The interface of a differentiable environment: five pure functions on batches of states."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.states import S, State, cast_state_like, is_state, leaves_of, where_state
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.state import Schema, items, tensor

Quality = Literal["exact", "approximate", "none"]
REQUIRED_ATTRIBUTES = ("observation_space", "action_space", "max_episode_steps")
REQUIRED_FUNCTIONS = ("initial", "transition", "observation", "reward", "terminal")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientInfo:
    """How far the derivatives of an environment can be trusted.

    Agents read it before they use a pathwise gradient, and ``check-env`` tests it by central
    differences.
    """

    action: Quality = "exact"
    """The derivative of a step by its action. A pathwise gradient needs it."""
    state: Quality = "exact"
    """The derivative of a step by its state. Without it no gradient reaches earlier actions."""
    reward: Quality = "exact"
    """The derivative of the reward by state and action."""
    method: str = "autograd"
    """How the derivatives are computed, for messages."""
    contacts: Literal["none", "smooth", "stiff"] = "none"
    """Stiff contacts make pathwise gradients large, and biased where the dynamics jump."""


class DifferentiableEnv(ABC, Generic[S]):
    """Batched dynamics as pure functions. The method names are those of Gymnasium's ``FuncEnv``.

    A subclass must define the first three attributes below and the five abstract functions.
    Each function is pure: the same inputs give the same outputs, and no input is changed. The only
    sources of randomness are the generator given to ``initial`` and ``reset_where`` and the noise
    given to ``transition``. Rows are independent: the outputs of environment ``i`` depend on the
    inputs of environment ``i`` alone.

    The functions must keep the dtype and the device of the state they are given.
    """

    observation_space: Box
    """The space of one environment's observation ``[O]``."""
    action_space: Box
    """The space of one environment's action ``[A]``."""
    max_episode_steps: int
    """The number of steps after which an episode is truncated."""
    gradient: GradientInfo = GradientInfo()
    noise_shape: tuple[int, ...] | None = None
    """The shape of one environment's process noise; None if the dynamics are deterministic."""

    @abstractmethod
    def initial(self, num_envs: int, generator: torch.Generator) -> S:
        """The start states of ``num_envs`` episodes, on the generator's device."""

    @abstractmethod
    def transition(self, state: S, action: Tensor, noise: Tensor | None) -> S:
        """``s_{t+1} = f(s_t, a_t, w_t)``.

        Args:
            state: ``s_t``.
            action: ``a_t`` ``[N, A]``.
            noise: ``w_t``, standard normal ``[N, *noise_shape]``; None if ``noise_shape`` is None.
        """

    @abstractmethod
    def observation(self, state: S) -> Tensor:
        """The policy's input ``[N, O]`` in this state."""

    @abstractmethod
    def reward(self, state: S, action: Tensor, next_state: S) -> Tensor:
        """``[N]`` the reward of the step that went from ``state`` to ``next_state``."""

    @abstractmethod
    def terminal(self, state: S) -> Tensor:
        """``[N]`` bool: whether the episode terminates in this state, so that its value is 0."""

    def truncated(self, state: S) -> Tensor | None:
        """``[N]`` bool: whether the episode is truncated here for a reason other than its length.

        None, the default, stands for never.
        """
        return None

    @property
    def unwrapped(self) -> "DifferentiableEnv[Any]":
        """The environment inside all wrappers, which is this one if it is no wrapper."""
        return self

    def plain_maker(self) -> Callable[[], AnyEnv] | None:
        """Makes environments that play the same episodes without a gradient, for evaluations.

        None, the default, where any number of vector environments can use this object.
        """
        return None

    def render(self, state: S, index: int) -> NDArray[np.uint8]:
        """An RGB picture ``[height, width, 3]`` of environment ``index``.

        Raises:
            RequestError: this environment has no ``render`` of its own.
        """
        raise RequestError(
            f"{type(self).__name__} does not draw itself: give it a method render(state, index) "
            "that returns an RGB array, or ask for no video"
        )

    def reset_where(self, state: S, mask: Tensor, generator: torch.Generator) -> S:
        """New start states in the rows where ``mask`` ``[N]`` is true; the other rows as they are.

        The default draws ``N`` start states by :meth:`initial` and keeps some. Override it where
        start states are expensive.

        Args:
            state: the state of all environments; it may carry a graph, which the other rows keep.
            mask: ``[N]`` bool, true in the rows to reset.
            generator: source of the start states' randomness, passed to :meth:`initial`.
        """
        fresh = self.initial(mask.shape[0], generator)
        return where_state(mask, cast_state_like(fresh, state), state)

    def begin_window(self) -> None:
        """Called where the graph is cut: nothing computed before will be differentiated any more.

        An adapter that learns updates itself here. The default does nothing.
        """

    def metrics(self) -> dict[str, Tensor]:
        """Scalars for TensorBoard, by tag, over the time since the last call. The default has none.

        Tags begin with ``environment/``. Metrics must not draw random numbers.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Data that an exact resume needs besides the states, such as a learned model's weights.

        Tensors, numbers, strings, lists and dictionaries. The default is empty.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            StateError: it does not fit (:mod:`pgtoolkit.state` compares).
        """

    def state_schema(self, own: S) -> Schema:
        """What a saved state of the environments must be like, given one of them as they are now.

        The default is for states that keep their dtypes and shapes. It is called after
        :meth:`load_state_dict`.
        """
        if isinstance(own, Tensor):
            return tensor(own)
        return items([tensor(leaf) for leaf in own], getattr(own, "_fields", ()))

    def numpy_initial(self, rng: np.random.Generator) -> S:
        """The start state of :class:`NumpyEnv <pgtoolkit.envs.numpy_env.NumpyEnv>`, batch size 1.

        By default ``rng`` draws the seed of a torch generator for :meth:`initial`.
        """
        seed = int(rng.integers(2**63 - 1))
        return self.initial(1, torch.Generator().manual_seed(seed))

    def numpy_action(self, action: NDArray[Any], dtype: torch.dtype) -> Tensor:
        """An action ``[A]`` of :class:`NumpyEnv <pgtoolkit.envs.numpy_env.NumpyEnv>` as ``[1, A]``.

        Args:
            action: ``[A]``.
            dtype: the dtype in which the environment computes.
        """
        return torch.tensor(action, dtype=dtype).unsqueeze(0)

    def numpy_reward(self, state: S, action: Tensor, next_state: S) -> float:
        """The reward of :class:`NumpyEnv <pgtoolkit.envs.numpy_env.NumpyEnv>`.

        Override it where the reward must equal another implementation's to the last bit.

        Raises:
            RequestError: :meth:`reward` returned no tensor ``[1]``.
        """
        reward = self.reward(state, action, next_state)
        require_outputs(self, 1, reward=reward)
        return reward.item()


def require_attributes(env: DifferentiableEnv) -> None:
    """Raises unless the environment has its two spaces and its time limit.

    Raises:
        RequestError: names the missing attributes.
    """
    missing = [name for name in REQUIRED_ATTRIBUTES if not hasattr(env, name)]
    if missing:
        raise RequestError(
            f"{type(env).__name__} has no {' and no '.join(missing)}: a DifferentiableEnv sets "
            f"{', '.join(REQUIRED_ATTRIBUTES)}, on the class or in __init__"
        )


def wrong_attributes(env: DifferentiableEnv) -> list[str]:
    """A sentence for a time limit that is no number of steps, and for each name of no function."""
    name, limit = type(env.unwrapped).__name__, env.max_episode_steps
    wrong = []
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1:
        wrong.append(f"{name}.max_episode_steps is {limit!r}: it must be an int of at least 1")
    for function in REQUIRED_FUNCTIONS:
        found = getattr(env, function)
        if not callable(found):
            wrong.append(f"{name}.{function} is {found!r}: it must be a function")
    return wrong


def next_state(env: DifferentiableEnv, state: Any, action: Tensor, noise: Tensor | None) -> Any:
    """``env.transition(state, action, noise)``.

    Raises:
        RequestError: the function failed at a None, and its noise is None.
    """
    try:
        return env.transition(state, action, noise)
    except (TypeError, AttributeError) as error:
        if noise is not None or "NoneType" not in str(error):
            raise
        name = type(env.unwrapped).__name__
        raise RequestError(
            f"{name}.transition failed ({error}), and its noise is None because {name} sets no "
            "noise_shape: noise_shape = (2,) gives it noise of two numbers a step"
        ) from error


def require_state(env: DifferentiableEnv, name: str, found: object) -> None:
    """Raises unless ``found``, which the function ``name`` returned, can be a state.

    Raises:
        RequestError: it is neither a tensor nor a NamedTuple of tensors.
    """
    if not is_state(found):
        raise RequestError(
            f"{type(env).__name__}.{name} returned a {type(found).__name__}: it must return a "
            "tensor [N, ...] or a NamedTuple of them"
        )


def require_same_dtypes(env: DifferentiableEnv, before: State, after: State) -> None:
    """Raises if a step changes the dtype of the state, such as from float32 to float64.

    Raises:
        RequestError: names the two dtypes.
    """
    pairs = zip(leaves_of(before), leaves_of(after), strict=True)
    changed = next(((a.dtype, b.dtype) for a, b in pairs if a.dtype != b.dtype), None)
    if changed is not None:
        raise RequestError(
            f"{type(env).__name__}.transition turned a state of {changed[0]} into {changed[1]}: "
            "it must keep the dtype"
        )


def require_unwritten(
    env: DifferentiableEnv, given: Sequence[Tensor], versions: Sequence[int]
) -> None:
    """Raises if a step has written into the state or the action that it was given.

    The graph would lose the numbers that it needs, and a reward see the next state twice.

    Args:
        env: the environment.
        given: the tensors of the state, and the action.
        versions: how often each had been written to before the step.

    Raises:
        RequestError: one was written to.
    """
    if any(x._version != version for x, version in zip(given, versions, strict=True)):
        raise RequestError(
            f"{type(env).__name__} wrote into the state or the action that a step was given: "
            "transition must return a new state, so use x = x + y in the place of x += y"
        )


def require_outputs(
    env: DifferentiableEnv, num_envs: int, *, dtype: torch.dtype | None = None, **outputs: object
) -> None:
    """Raises unless the environment's functions returned tensors of the right shapes and dtypes.

    The shape is ``[N, O]`` for ``observation`` and ``[N]`` for every other function; ``terminal``
    and ``truncated`` must be bool. A reward ``[N, 1]`` would otherwise broadcast against ``[N]``
    without an error, and one of another dtype fail far from here.

    Args:
        env: the environment.
        num_envs: ``N``.
        dtype: of the state, and so of observations and rewards; None if they are converted.
        outputs: function name to what it returned.

    Raises:
        RequestError: names the first function with a wrong output, and the right shape or dtype.
    """
    for name, output in outputs.items():
        shape = (num_envs, *env.observation_space.shape) if name == "observation" else (num_envs,)
        if not isinstance(output, Tensor):
            raise RequestError(
                f"{type(env).__name__}.{name} returned a {type(output).__name__}: it must return a "
                f"tensor {list(shape)}"
            )
        if tuple(output.shape) != shape:
            raise RequestError(
                f"{type(env).__name__}.{name} returned a tensor of shape {list(output.shape)} for "
                f"{num_envs} environment{'s' * (num_envs > 1)}: it must return {list(shape)}"
            )
        if name in ("terminal", "truncated"):
            if output.dtype != torch.bool:
                raise RequestError(
                    f"{type(env).__name__}.{name} returned {output.dtype}: it must return booleans"
                )
        elif dtype is not None and output.dtype != dtype:
            raise RequestError(
                f"{type(env).__name__}.{name} returned {output.dtype}: it must return {dtype}, as "
                "the state is"
            )


def can_render(env: DifferentiableEnv) -> bool:
    """Whether the environment has a ``render`` method of its own."""
    return type(env.unwrapped).render is not DifferentiableEnv.render
