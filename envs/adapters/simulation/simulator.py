"""What finite differences need of a simulator: any state, as numbers, to step from.

Shapes: ``K`` states of ``S`` saved numbers, ``D`` tangent dimensions, ``A`` action and ``O``
observation dimensions. All arrays are float64 unless they say otherwise.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Outcome(NamedTuple):
    """What steps led to."""

    saved: Array
    """``[K, S]`` the states afterwards."""
    observation: Array
    """``[K, O]``."""
    reward: Array
    """``[K]``."""
    terminated: NDArray[np.bool_]
    """``[K]``."""


class Linearization(NamedTuple):
    """Derivatives of ``K`` steps. The last axis is what moves: first the tangent, then the action.

    A state is moved along the tangent space, and the next state's move is measured there too.
    """

    state: Array
    """``[K, D, D + A]``."""
    observation: Array
    """``[K, O, D + A]``."""
    reward: Array
    """``[K, D + A]``."""
    disagreement: Array
    """``[K]`` how far it changes with the step size, relative; 0 where nothing was compared."""


Linearizer = Callable[[Array, Array], Linearization]
"""From saved states ``[K, S]`` and actions ``[K, A]``."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """In which dtype a simulator computes each part: a difference cannot resolve less."""

    state: np.dtype
    observation: np.dtype
    reward: np.dtype


class Simulator(ABC):
    """An environment as a pure function of its saved state, which holds all that its future needs.

    A *saved* state is an array ``[S]``. Its differentiable part is changed by *tangent* vectors
    ``[D]``: for plain numbers addition, for rotations a rotation. Restoring is exact: a step from a
    restored state equals the step of the environment that was saved, to the bit.
    """

    observation_space: Box
    action_space: Box
    max_episode_steps: int
    saved_size: int
    """``S``."""
    tangent_size: int
    """``D``."""
    precision: Precision

    @abstractmethod
    def reset(self, seed: int) -> tuple[Array, Array]:
        """A fresh start: saved state ``[S]`` and observation ``[O]``; equal seeds, equal starts."""

    @abstractmethod
    def step(self, saved: Array, action: NDArray[np.floating]) -> Outcome:
        """Steps from ``K`` states ``[K, S]`` by actions ``[K, A]``, given in the dtype they have.

        Exactly what the plain environment does, clipping and substeps included.
        """

    @abstractmethod
    def perturb(self, saved: Array, tangent: Array) -> Array:
        """``saved (+) tangent``: states ``[K, S]`` moved along tangent vectors ``[K, D]``."""

    @abstractmethod
    def displacement(self, saved: Array, origin: Array) -> Array:
        """``saved (-) origin`` ``[K, D]``: the tangent vectors from ``origin`` ``[K, S]``."""
