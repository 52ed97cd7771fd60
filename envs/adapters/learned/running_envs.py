"""Ordinary environments in mid-episode, one a row, each known by its seed and its actions.

An ordinary environment goes forward only. What can be had all the same: a fresh start is a seed, so
it can be started from as often as one likes; an episode under way is a seed and the actions since,
so another process can bring it back by taking them again; and a step from any other state is
refused.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, final

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from pgtoolkit.errors import RequestError, one_line
from pgtoolkit.gymnasium_types import AnyEnv

EPISODE_START = 0
"""The step_token of a state before the first step of its episode."""


class EnvSteps(NamedTuple):
    """What steps of ``N`` environments led to."""

    observation: NDArray[np.float64]
    """``[N, O]``."""
    reward: NDArray[np.float64]
    """``[N]``."""
    terminated: NDArray[np.bool_]
    """``[N]``."""
    truncated: NDArray[np.bool_]
    """``[N]`` as the environment itself says."""
    step_token: NDArray[np.int64]
    """``[N]`` what the next step must show."""
    episode: NDArray[np.int64]
    """``[N]`` the episode's number, in the order in which they began."""


@dataclasses.dataclass
class _RunningEpisode:
    env: AnyEnv
    number: int = 0
    seed: int = 0
    step_token: int = EPISODE_START
    actions: list[NDArray[Any]] = dataclasses.field(default_factory=list)
    observation: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.empty(0))
    over: bool = True


@final
class RunningEnvs:
    """Rows of environments that are made as they are needed.

    Args:
        make: makes one environment; ``reset(seed=...)`` must fix all of its episode.
    """

    def __init__(self, make: Callable[[], AnyEnv]) -> None:
        self._make, self._starter = make, make()
        self._rows: list[_RunningEpisode] = []
        self._num_steps = self._num_episodes = 0

    def start(self, seed: int) -> NDArray[np.float64]:
        """The first observation ``[O]`` of the episode with that seed. No episode is disturbed."""
        return _array(self._starter.reset(seed=seed)[0])

    def step(
        self,
        seed: NDArray[np.int64],
        step_token: NDArray[np.int64],
        observation: NDArray[np.floating],
        action: NDArray[Any],
    ) -> EnvSteps:
        """Steps row ``i`` by ``action[i]``, or begins its episode of that seed where it is fresh.

        Args:
            seed: ``[N]`` of the episodes.
            step_token: ``[N]`` from the last step; 0 begins.
            observation: ``[N, O]`` that the actions were chosen by; where an episode begins, it
                must be what it begins with.
            action: ``[N, A]``.

        Raises:
            RequestError: a row has gone on since, or its episode is over; or the seed does not fix
                the start. Nothing was stepped.
        """
        while len(self._rows) < len(step_token):
            self._rows.append(_RunningEpisode(self._make()))
        rows = self._rows[: len(step_token)]
        for index, (episode, shown) in enumerate(zip(rows, step_token.tolist(), strict=True)):
            _require_current(episode, index, shown)
        for index in np.flatnonzero(step_token == EPISODE_START).tolist():
            begun = self._begin(rows[index], int(seed[index]))
            _require_equal(begun.astype(observation.dtype), observation[index])
        outcomes = [self._advance(*each) for each in zip(rows, action, strict=True)]
        after, reward, terminated, truncated = zip(*outcomes, strict=True)
        return EnvSteps(
            np.stack(after),
            np.array(reward, dtype=np.float64),
            np.array(terminated, dtype=np.bool_),
            np.array(truncated, dtype=np.bool_),
            np.array([episode.step_token for episode in rows], dtype=np.int64),
            np.array([episode.number for episode in rows], dtype=np.int64),
        )

    def _begin(self, episode: _RunningEpisode, seed: int) -> NDArray[np.float64]:
        episode.observation = _array(episode.env.reset(seed=seed)[0])
        episode.number, episode.seed, episode.actions, episode.over = (
            self._num_episodes,
            seed,
            [],
            False,
        )
        self._num_episodes += 1
        return episode.observation

    def _advance(
        self, episode: _RunningEpisode, action: NDArray[Any]
    ) -> tuple[NDArray[np.float64], float, bool, bool]:
        given = action.astype(episode.env.action_space.dtype)
        after, reward, terminated, truncated, _ = episode.env.step(given)
        self._num_steps += 1
        episode.step_token, episode.over = self._num_steps, bool(terminated or truncated)
        episode.actions.append(given)
        episode.observation = _array(after)
        return episode.observation, float(reward), bool(terminated), bool(truncated)

    def state_dict(self) -> dict[str, Any]:
        """Every episode under way as its seed and its actions."""
        return {
            "step_tokens": self._num_steps,
            "episodes": self._num_episodes,
            "rows": [_saved(episode) for episode in self._rows],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Brings the episodes back by taking their actions again.

        Raises:
            RequestError: they lead elsewhere now.
        """
        self._rows = [self._brought_back(saved) for saved in state["rows"]]
        self._num_steps, self._num_episodes = state["step_tokens"], state["episodes"]

    def _brought_back(self, saved: dict[str, Any]) -> _RunningEpisode:
        episode = _RunningEpisode(self._make(), saved["number"], saved["seed"])
        if saved["over"]:
            return episode
        self._begin(episode, saved["seed"])
        for action in saved["actions"].numpy():
            self._advance(episode, action)
        episode.number, episode.step_token = saved["number"], saved["step_token"]
        _require_equal(episode.observation, saved["observation"].numpy())
        return episode


def _saved(episode: _RunningEpisode) -> dict[str, Any]:
    actions = [] if episode.over else episode.actions
    return {
        "number": episode.number,
        "seed": episode.seed,
        "step_token": episode.step_token,
        "over": episode.over,
        "actions": torch.from_numpy(np.array(actions)),
        "observation": torch.from_numpy(episode.observation),
    }


def _require_current(episode: _RunningEpisode, index: int, shown: int) -> None:
    if shown not in (EPISODE_START, episode.step_token):
        raise RequestError(
            f"environment {index} cannot step from an old state: it is an ordinary environment, "
            "which only goes forward, and it has gone on since. Step from the state that the last "
            "transition returned or from a fresh start, and let one vector environment at a time "
            "use this object"
        )
    if shown != EPISODE_START and episode.over:
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


def flat_box(what: str, space: gymnasium.Space[Any]) -> Box:
    """The space, if it is a Box of one axis.

    Raises:
        RequestError: it is another.
    """
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise RequestError(
            f"a model of this environment cannot be learned: its {what} are {one_line(space)}, and "
            "a Box of one axis is needed. Flatten them (gymnasium.wrappers.FlattenObservation), or "
            "train with `reinforce`, which needs no gradient"
        )
    return space


def time_limit(env: AnyEnv) -> int:
    """Steps after which an episode is truncated, by its registration or by a wrapper.

    Raises:
        RequestError: there is no limit.
    """
    registered = None if env.spec is None else env.spec.max_episode_steps
    limits = [] if registered is None else [registered]
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, TimeLimit):
            limits.append(layer._max_episode_steps)
        layer = layer.env
    if not limits:
        raise RequestError("this environment has no time limit: give max_episode_steps")
    return min(limits)
