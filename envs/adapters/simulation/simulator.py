"""The interface of a simulator: an environment that can be stepped from any saved state.

Shapes: ``K`` states of ``S`` saved numbers, ``D`` tangent dimensions, ``A`` action and ``O``
observation dimensions. All arrays are float64 unless they say otherwise.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]


class Outcome(NamedTuple):
    """Results of ``K`` steps."""

    saved: Array
    """``[K, S]``: the states after the steps."""
    observation: Array
    """``[K, O]``."""
    reward: Array
    """``[K]``."""
    terminated: NDArray[np.bool_]
    """``[K]``."""


class Linearization(NamedTuple):
    """Jacobians of ``K`` steps by state and action, which share the last axis in this order.

    Both the state and the next state are described by tangent vectors ``[D]``.
    """

    state: Array
    """``[K, D, D + A]``."""
    observation: Array
    """``[K, O, D + A]``."""
    reward: Array
    """``[K, D + A]``."""
    disagreement: Array
    """``[K]``: relative change of the derivative with a longer step; 0 where it was not tested."""
    error: Array
    """``[K]``: relative change of the derivative with a shorter step, beyond rounding: an estimate
    of its own error. 0 where it was not tested."""


Linearizer: TypeAlias = Callable[[Array, Array], Linearization]
"""Jacobians at saved states ``[K, S]`` and actions ``[K, A]``."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """The dtype in which a simulator computes each part; it bounds the step sizes from below."""

    state: np.dtype
    observation: np.dtype
    reward: np.dtype


class Simulator(ABC):
    """An environment as a pure function of its saved state, on which all its future depends.

    A *saved* state is an array ``[S]``. *Tangent* vectors ``[D]`` move its differentiable part:
    numbers by addition, attitudes by a rotation. Restoring is exact: a step from a restored state
    equals the step of the environment that was saved, to the bit.
    """

    observation_space: Box
    action_space: Box
    max_episode_steps: int
    saved_size: int
    """``S`` at the moment. It grows when something becomes state that was constant before. States
    that were saved before are narrower, and remain valid."""
    tangent_size: int
    """``D`` at the moment. It grows at the end, as ``S`` does."""
    precision: Precision
    may_round: bool = True
    """Whether outputs may be rounded to a grid, as some programs round their observations."""

    @abstractmethod
    def reset(self, seed: int) -> tuple[Array, Array]:
        """The saved state ``[S]`` and observation ``[O]`` of a start that the seed determines.

        It is the first start of an environment that was just made.
        """

    def reset_again(self, saved: Array, seed: int) -> tuple[Array, Array]:
        """The start of a further episode of the environment whose last state is ``saved`` ``[S]``.

        It differs from :meth:`reset` if the environment keeps a memory of earlier episodes. The
        default is :meth:`reset`.
        """
        return self.reset(seed)

    @abstractmethod
    def step(self, saved: Array, action: NDArray[np.floating]) -> Outcome:
        """Steps from saved states ``[K, S]`` with actions ``[K, A]``.

        The results are exactly those of the plain environment, with its own clipping and substeps.
        Actions keep their dtype.
        """

    @abstractmethod
    def perturb(self, saved: Array, tangent: Array) -> Array:
        """``saved (+) tangent``: states ``[K, S]`` moved by tangent vectors ``[K, D]``."""

    @abstractmethod
    def displacement(self, saved: Array, origin: Array) -> Array:
        """``saved (-) origin``: tangent vectors ``[K, D]`` from ``origin`` to ``saved``."""

    def begin_window(self) -> None:  # noqa: B027  (a default, not a duty)
        """Called where the graph is cut. The default does nothing."""

    def state_dict(self) -> dict[str, Any]:
        """What another process needs to read the saved states. The default is empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restores what :meth:`state_dict` returned."""

    def require_states(self, saved: Array, path: str) -> None:  # noqa: B027
        """Compares saved states ``[N, S]`` that come from a file with those of this simulator.

        The default demands nothing beyond their shape.

        Raises:
            StateError: they are no states of it; ``path`` is their place.
        """
