"""The protocol of a differentiable environment: five pure functions on batches of states."""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.states import S, like_state, where_state
from pgtoolkit.errors import RequestError

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

    def truncated(self, state: S) -> Tensor | None:
        """``[N]`` bool: the episode is cut here for a reason other than its length. None: never."""
        return None

    @property
    def unwrapped(self) -> "DifferentiableEnv[Any]":
        """The environment inside all wrappers: itself, if it is none."""
        return self

    def render(self, state: S, index: int) -> NDArray[np.uint8]:
        """An RGB picture ``[height, width, 3]`` of environment ``index``.

        Raises:
            RequestError: this environment does not draw itself.
        """
        raise RequestError(
            f"{type(self).__name__} does not draw itself: give it a method render(state, index) "
            "that returns an RGB array, or ask for no video"
        )

    def restart(self, state: S, mask: Tensor, generator: torch.Generator) -> S:
        """Fresh starts in the rows where ``mask`` ``[N]`` is true; the others as they are.

        Override it where starts are expensive: this one draws ``N`` of them.

        Args:
            state: of all environments, may carry a graph; the other rows keep it.
            mask: which start anew.
            generator: as in :meth:`initial`.
        """
        fresh = self.initial(mask.shape[0], generator)
        return where_state(mask, like_state(fresh, state), state)

    def begin_window(self) -> None:
        """Called where the graph is cut: nothing computed before will be differentiated any more.

        An adapter that learns does it here. Does nothing by default.
        """

    def metrics(self) -> dict[str, Tensor]:
        """TensorBoard tag to scalar: what is worth a curve, since the last call. None by default.

        Tags begin with ``environment/``. They come from plain counters, never from random numbers.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs beside the states: of an adapter that learns, what it learned.

        Tensors, numbers, strings, lists and dictionaries. Nothing by default.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where :meth:`state_dict` left off."""

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
    return type(env.unwrapped).render is not DifferentiableEnv.render
