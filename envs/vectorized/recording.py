"""The actions since the start of each environment's episode, so that a fault can be repeated."""

import sys
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.vectorized.play import Start

MAX_STEPS = 100_000
"""Most steps of an episode whose actions are kept; one without an end would fill the memory."""


@final
class Recording:
    """The start of each environment's episode and the actions since.

    Args:
        num_envs: ``N``.
    """

    def __init__(self, num_envs: int) -> None:
        self._starts: list[Start] = [{"seed": None, "generator": None} for _ in range(num_envs)]
        # Actions of all environments by step: one copy a step is cheaper than one an environment.
        self._actions: list[NDArray[Any]] = []
        self._oldest = 0
        self._first_step = [0] * num_envs
        self._loaded: list[list[Any]] = [[] for _ in range(num_envs)]

    @property
    def num_steps(self) -> int:
        """Steps so far."""
        return self._oldest + len(self._actions)

    def begin(self, index: int, start: Start, actions: list[Any] | None = None) -> None:
        """An environment begins an episode, or goes on with one whose first actions are given."""
        self._starts[index], self._loaded[index] = start, actions or []
        self._first_step[index] = self.num_steps
        # Not at every end of an episode, which would move what is left each time.
        needed = min(self._first_step) - self._oldest
        if needed > len(self._actions) // 2:
            del self._actions[:needed]
            self._oldest += needed

    def forget(self, index: int) -> None:
        """An environment takes no more steps, so its actions are not kept."""
        self._first_step[index] = sys.maxsize

    def add(self, actions: NDArray[Any]) -> None:
        """Adds a copy of all environments' actions ``[N, ...]``, because a step may change them."""
        if len(self._actions) == MAX_STEPS:
            del self._actions[: MAX_STEPS // 2]
            self._oldest += MAX_STEPS // 2
        self._actions.append(actions.copy())

    def start(self, index: int) -> Start:
        """What determines the start of the episode."""
        return self._starts[index]

    def length(self, index: int) -> int:
        """Steps of the episode so far."""
        return len(self._loaded[index]) + self.num_steps - self._first_step[index]

    def actions(self, index: int) -> list[Any] | None:
        """The episode's actions, as lists of numbers; None if there are too many."""
        first = self._first_step[index] - self._oldest
        if first < 0:
            return None
        return self._loaded[index] + [np.asarray(x[index]).tolist() for x in self._actions[first:]]

    def replay(self, index: int) -> dict[str, Any]:
        """What repeats the episode up to the latest step, as JSON can hold it.

        ``actions`` is None if the episode has more steps than are kept.
        """
        return {
            "start": self.start(index),
            "actions": self.actions(index),
            "env_index": index,
        }
