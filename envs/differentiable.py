"""The protocol of a differentiable environment: five pure functions on batches of states."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeAlias, cast, final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import TypeVar

from pgtoolkit.errors import RequestError

State: TypeAlias = Tensor | tuple[Tensor, ...]
"""``[N, S]``, or a NamedTuple of tensors that all begin with ``N``."""

# The default lets a class derive from the bare ``DifferentiableEnv``; the parameter lets a type
# checker see which state an environment has.
S = TypeVar("S", bound=State, default=Any)

Quality = Literal["exact", "approximate", "none"]
REQUIRED_ATTRIBUTES = ("observation_space", "action_space", "max_episode_steps")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientInfo:
    """What an environment's derivatives are worth, for agents that ask before they use them."""

    action: Quality = "exact"
    """By the action: the one that a pathwise gradient cannot do without."""
    state: Quality = "exact"
    """By the state: without it, the gradient of a step does not reach earlier steps."""
    reward: Quality = "exact"
    """Of the reward."""
    method: str = "autograd"
    """How they are computed."""
    contacts: Literal["none", "smooth", "stiff"] = "none"
    """Stiff contacts make pathwise gradients large, and biased where they break continuity."""


class DifferentiableEnv(ABC, Generic[S]):
    """Batched, functional dynamics. The method names are those of Gymnasium's ``FuncEnv``.

    A subclass that gives the three attributes and the five abstract functions is complete. Each
    function is pure: the same inputs give the same outputs, and no input is changed. Randomness
    enters by ``initial``'s generator and by ``transition``'s noise, and nowhere else. Rows do not
    mix: environment ``i``'s outputs depend on environment ``i``'s inputs alone.

    The functions must keep the dtype and the device of the state they are given.
    """

    observation_space: Box
    """Of one environment, ``[O]``."""
    action_space: Box
    """Of one environment, ``[A]``."""
    max_episode_steps: int
    """The episode is truncated after so many steps."""
    gradient: GradientInfo = GradientInfo()
    noise_shape: tuple[int, ...] | None = None
    """Of one environment's process noise; None if the dynamics are deterministic."""

    @abstractmethod
    def initial(self, num_envs: int, generator: torch.Generator) -> S:
        """Start states of ``num_envs`` episodes, on the generator's device."""

    @abstractmethod
    def transition(self, state: S, action: Tensor, noise: Tensor | None) -> S:
        """``s_{t+1} = f(s_t, a_t, w_t)``.

        Args:
            state: ``s_t``.
            action: ``[N, A]``.
            noise: standard normal ``[N, *noise_shape]``; None if ``noise_shape`` is None.
        """

    @abstractmethod
    def observation(self, state: S) -> Tensor:
        """``[N, O]`` what the policy sees of the state."""

    @abstractmethod
    def reward(self, state: S, action: Tensor, next_state: S) -> Tensor:
        """``[N]`` the reward of the step that went from ``state`` to ``next_state``."""

    @abstractmethod
    def terminal(self, state: S) -> Tensor:
        """``[N]`` bool: the episode ends here, and what follows is worth 0."""

    def render(self, state: S, index: int) -> NDArray[np.uint8]:
        """An RGB picture ``[height, width, 3]`` of environment ``index``.

        Raises:
            RequestError: this environment does not draw itself.
        """
        raise RequestError(
            f"{type(self).__name__} does not draw itself: give it a method render(state, index) "
            "that returns an RGB array, or ask for no video"
        )

    def numpy_initial(self, rng: np.random.Generator) -> S:
        """The start state of one environment, for the NumPy view and its own kind of generator."""
        seed = int(rng.integers(2**63 - 1))
        return self.initial(1, torch.Generator().manual_seed(seed))

    def numpy_action(self, action: NDArray[Any], dtype: torch.dtype) -> Tensor:
        """The NumPy view's action ``[A]`` as ``[1, A]``, in the dtype in which it computes."""
        return torch.tensor(action, dtype=dtype).unsqueeze(0)

    def numpy_reward(self, state: S, action: Tensor, next_state: S) -> float:
        """The NumPy view's reward: :meth:`reward`, unless another one must be met to the bit."""
        return self.reward(state, action, next_state).item()


def require_attributes(env: DifferentiableEnv) -> None:
    """Raises if the environment lacks one of the three attributes.

    Raises:
        RequestError: names the missing ones.
    """
    missing = [name for name in REQUIRED_ATTRIBUTES if not hasattr(env, name)]
    if missing:
        raise RequestError(
            f"{type(env).__name__} has no {' and no '.join(missing)}: a DifferentiableEnv sets "
            f"{', '.join(REQUIRED_ATTRIBUTES)}, on the class or in __init__"
        )


def require_output(
    env: DifferentiableEnv, name: str, found: Tensor, shape: tuple[int, ...]
) -> None:
    """Raises unless what the function of that name returned has the shape that it owes.

    A reward ``[N, 1]`` would broadcast against ``[N]`` in silence, and train on nonsense.

    Raises:
        RequestError: names the function, the shape that it returned and the one that it owes.
    """
    if tuple(found.shape) != shape:
        raise RequestError(
            f"{type(env).__name__}.{name} returned a tensor of shape {list(found.shape)} for "
            f"{shape[0]} environments: it must return {list(shape)}"
        )
    if name == "terminal" and found.dtype != torch.bool:
        raise RequestError(
            f"{type(env).__name__}.terminal returned {found.dtype}: it must return booleans"
        )


def draws_itself(env: DifferentiableEnv) -> bool:
    """Whether the environment has a ``render`` of its own."""
    return type(env).render is not DifferentiableEnv.render


def map_state(function: Callable[..., Tensor], state: S, *others: S) -> S:
    """Applies a function to each tensor of a state, or to the like tensors of several states.

    The result has the type of the first state, so a NamedTuple stays that NamedTuple.

    Raises:
        ValueError: the states have different numbers of tensors.
    """
    if isinstance(state, Tensor):
        return cast(S, function(state, *others))
    leaves = (function(*like) for like in zip(state, *others, strict=True))
    return rebuild_state(state, tuple(leaves))


def rebuild_state(template: S, leaves: tuple[Tensor, ...] | Tensor) -> S:
    """The tensors in the template's type: a NamedTuple of its kind, a plain tuple, or a tensor.

    Raises:
        ValueError: they do not fit the template.
    """
    if isinstance(template, Tensor) != isinstance(leaves, Tensor):
        raise ValueError(f"a state of type {type(template).__name__} was expected")
    if isinstance(template, Tensor):
        return cast(S, leaves)
    if len(leaves) != len(template):
        raise ValueError(f"a state of {len(template)} tensors was expected, not of {len(leaves)}")
    kind = cast(Any, type(template))
    return cast(S, kind(*leaves) if hasattr(kind, "_fields") else kind(leaves))


def where_state(mask: Tensor, chosen: S, otherwise: S) -> S:
    """Takes the rows where ``mask`` ``[N]`` is true from ``chosen``, the rest from ``otherwise``.

    Each row's gradient goes to the state it came from, and to no other.
    """

    def select(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b)

    return map_state(select, chosen, otherwise)


def cast_state(state: S, device: torch.device, dtype: torch.dtype) -> S:
    """The state on the device, its floating-point tensors in the dtype."""

    def move(leaf: Tensor) -> Tensor:
        return leaf.to(device, dtype if leaf.is_floating_point() else leaf.dtype)

    return map_state(move, state)
