"""Ordinary environments in mid-episode, one a row, each known by its seed and its actions.

An ordinary environment goes forward only. What can be had all the same: a fresh start is a seed, so
it can be started from as often as one likes; an episode under way is a seed and the actions since,
so another process can bring it back by taking them again; and a step from any other state is
refused.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray

from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

FRESH = 0
"""The stamp of a state before the first step of its episode."""


class LiveStep(NamedTuple):
    """What steps of ``N`` environments led to."""

    observation: NDArray[np.float64]
    """``[N, O]``."""
    reward: NDArray[np.float64]
    """``[N]``."""
    terminated: NDArray[np.bool_]
    """``[N]``."""
    truncated: NDArray[np.bool_]
    """``[N]`` as the environment itself says."""
    stamp: NDArray[np.int64]
    """``[N]`` what the next step must show."""
    episode: NDArray[np.int64]
    """``[N]`` the episode's number, in the order in which they began."""


@dataclasses.dataclass
class _Episode:
    env: AnyEnv
    number: int = 0
    seed: int = 0
    stamp: int = FRESH
    actions: list[NDArray[Any]] = dataclasses.field(default_factory=list)
    observation: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.empty(0))
    over: bool = True


@final
class LiveEpisodes:
    """Rows of environments that are made as they are needed.

    Args:
        make: makes one environment; ``reset(seed=...)`` must fix all of its episode.
    """

    def __init__(self, make: Callable[[], AnyEnv]) -> None:
        self._make, self._starter = make, make()
        self._rows: list[_Episode] = []
        self._stamps = self._episodes = 0

    def start(self, seed: int) -> NDArray[np.float64]:
        """The first observation ``[O]`` of the episode with that seed. No episode is disturbed."""
        return _array(self._starter.reset(seed=seed)[0])

    def step(
        self,
        seed: NDArray[np.int64],
        stamp: NDArray[np.int64],
        observation: NDArray[np.floating],
        action: NDArray[Any],
    ) -> LiveStep:
        """Steps row ``i`` by ``action[i]``, or begins its episode of that seed where it is fresh.

        Args:
            seed: ``[N]`` of the episodes.
            stamp: ``[N]`` from the last step; 0 begins.
            observation: ``[N, O]`` that the actions were chosen by; where an episode begins, it
                must be what it begins with.
            action: ``[N, A]``.

        Raises:
            RequestError: a row has gone on since, or its episode is over; or the seed does not fix
                the start. Nothing was stepped.
        """
        while len(self._rows) < len(stamp):
            self._rows.append(_Episode(self._make()))
        rows = self._rows[: len(stamp)]
        for index, (episode, shown) in enumerate(zip(rows, stamp.tolist(), strict=True)):
            _require_current(episode, index, shown)
        for index in np.flatnonzero(stamp == FRESH).tolist():
            begun = self._begin(rows[index], int(seed[index]))
            _require_equal(begun.astype(observation.dtype), observation[index])
        outcomes = [self._advance(*each) for each in zip(rows, action, strict=True)]
        after, reward, terminated, truncated = zip(*outcomes, strict=True)
        return LiveStep(
            np.stack(after),
            np.array(reward, dtype=np.float64),
            np.array(terminated, dtype=np.bool_),
            np.array(truncated, dtype=np.bool_),
            np.array([episode.stamp for episode in rows], dtype=np.int64),
            np.array([episode.number for episode in rows], dtype=np.int64),
        )

    def _begin(self, episode: _Episode, seed: int) -> NDArray[np.float64]:
        episode.observation = _array(episode.env.reset(seed=seed)[0])
        episode.number, episode.seed, episode.actions, episode.over = (
            self._episodes,
            seed,
            [],
            False,
        )
        self._episodes += 1
        return episode.observation

    def _advance(
        self, episode: _Episode, action: NDArray[Any]
    ) -> tuple[NDArray[np.float64], float, bool, bool]:
        given = action.astype(episode.env.action_space.dtype)
        after, reward, terminated, truncated, _ = episode.env.step(given)
        self._stamps += 1
        episode.stamp, episode.over = self._stamps, bool(terminated or truncated)
        episode.actions.append(given)
        episode.observation = _array(after)
        return episode.observation, float(reward), bool(terminated), bool(truncated)

    def state_dict(self) -> dict[str, Any]:
        """Every episode under way as its seed and its actions."""
        return {
            "stamps": self._stamps,
            "episodes": self._episodes,
            "rows": [_saved(episode) for episode in self._rows],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Brings the episodes back by taking their actions again.

        Raises:
            RequestError: they lead elsewhere now.
        """
        self._rows = [self._brought_back(saved) for saved in state["rows"]]
        self._stamps, self._episodes = state["stamps"], state["episodes"]

    def _brought_back(self, saved: dict[str, Any]) -> _Episode:
        episode = _Episode(self._make(), saved["number"], saved["seed"])
        if saved["over"]:
            return episode
        self._begin(episode, saved["seed"])
        for action in saved["actions"].numpy():
            self._advance(episode, action)
        episode.number, episode.stamp = saved["number"], saved["stamp"]
        _require_equal(episode.observation, saved["observation"].numpy())
        return episode


def _saved(episode: _Episode) -> dict[str, Any]:
    actions = [] if episode.over else episode.actions
    return {
        "number": episode.number,
        "seed": episode.seed,
        "stamp": episode.stamp,
        "over": episode.over,
        "actions": torch.from_numpy(np.array(actions)),
        "observation": torch.from_numpy(episode.observation),
    }


def _require_current(episode: _Episode, index: int, shown: int) -> None:
    if shown not in (FRESH, episode.stamp):
        raise RequestError(
            f"environment {index} cannot step from an old state: it is an ordinary environment, "
            "which only goes forward, and it has gone on since. Step from the state that the last "
            "transition returned or from a fresh start, and let one vector environment at a time "
            "use this object"
        )
    if shown != FRESH and episode.over:
        raise RequestError(
            f"the episode of environment {index} has ended: begin a new one before the next step"
        )


def _require_equal(found: NDArray[np.floating], expected: NDArray[np.floating]) -> None:
    if not np.array_equal(found, expected, equal_nan=True):
        raise RequestError(
            "the environment is not repeatable: the same seed and the same actions led to "
            f"{expected} before and to {found} now. Let reset(seed=...) fix all that is random"
        )


def _array(observation: Any) -> NDArray[np.float64]:
    return np.array(observation, dtype=np.float64)
