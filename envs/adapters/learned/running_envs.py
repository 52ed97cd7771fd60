"""Ordinary Gymnasium environments in the middle of episodes, which can be checkpointed.

An ordinary environment can only go forward from its present state, so a step from an older state is
refused. Two things are possible nevertheless. A start can be repeated, because its seed determines
it. An episode under way can be restored, in another process too, by resetting with its seed and
repeating its actions.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.rollouts.given_action import given_action
from pgtoolkit.state import (
    Schema,
    StateError,
    anything,
    array,
    entries,
    flag,
    integer,
    require,
    series,
)

EPISODE_START = 0
"""The step token of a state before the first step of its episode."""
ROW_ENTRIES = ("number", "seed", "step_token", "over", "actions", "observation")


class EnvSteps(NamedTuple):
    """Results of one step of each of ``N`` environments."""

    observation: NDArray[np.float64]
    """``[N, O]``."""
    reward: NDArray[np.float64]
    """``[N]``."""
    terminated: NDArray[np.bool_]
    """``[N]``."""
    truncated: NDArray[np.bool_]
    """``[N]``: as returned by the environment itself."""
    step_token: NDArray[np.int64]
    """``[N]``: identifies the state after the step; the next step must pass it."""
    episode: NDArray[np.int64]
    """``[N]``: number of the episode, counted from 0 over all environments."""


@dataclasses.dataclass
class _RunningEpisode:
    """One environment and the episode that it is in."""

    env: AnyEnv
    number: int = 0
    seed: int = 0
    step_token: int = EPISODE_START
    actions: list[NDArray[Any]] = dataclasses.field(default_factory=list)
    observation: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.empty(0))
    over: bool = True


@final
class RunningEnvs:
    """A growing list of environments, each of which is one row of a batch.

    Args:
        make: makes one environment, whose ``reset(seed=...)`` must determine the whole episode up
            to the actions. Environments are made when they are first needed.
    """

    def __init__(self, make: Callable[[], AnyEnv]) -> None:
        self._make, self._start_env = make, make()
        self._give = given_action(self._start_env.action_space)
        self._rows: list[_RunningEpisode] = []
        self._num_steps = self._num_episodes = 0

    def first_observation(self, seed: int) -> NDArray[np.float64]:
        """The first observation ``[O]`` of the episode with that seed; no episode is disturbed."""
        return _to_float64(self._start_env.reset(seed=seed)[0])

    def step(
        self,
        seed: NDArray[np.int64],
        step_token: NDArray[np.int64],
        observation: NDArray[np.floating],
        action: NDArray[Any],
    ) -> EnvSteps:
        """Steps each environment; those whose token is ``EPISODE_START`` are reset first.

        Args:
            seed: ``[N]``: seeds of the episodes.
            step_token: ``[N]``: from the last step, or ``EPISODE_START``.
            observation: ``[N, O]``: the observations before the step. At the start of an episode
                it is compared with what the reset returns.
            action: ``[N, A]``.

        Raises:
            RequestError: a token is not that of the present state, or an episode is over; then no
                environment has been stepped. Or an episode's seed does not determine its start.
        """
        while len(self._rows) < len(step_token):
            self._rows.append(_RunningEpisode(self._make()))
        rows = self._rows[: len(step_token)]
        for index, (episode, token) in enumerate(zip(rows, step_token.tolist(), strict=True)):
            _require_current(episode, index, token)
        for index in np.flatnonzero(step_token == EPISODE_START).tolist():
            start = self._reset(rows[index], int(seed[index]))
            _require_equal(start.astype(observation.dtype), observation[index])
        outcomes = [self._step(*each) for each in zip(rows, action, strict=True)]
        after, reward, terminated, truncated = zip(*outcomes, strict=True)
        return EnvSteps(
            np.stack(after),
            np.array(reward, dtype=np.float64),
            np.array(terminated, dtype=np.bool_),
            np.array(truncated, dtype=np.bool_),
            np.array([episode.step_token for episode in rows], dtype=np.int64),
            np.array([episode.number for episode in rows], dtype=np.int64),
        )

    def _reset(self, episode: _RunningEpisode, seed: int) -> NDArray[np.float64]:
        """Starts a new episode; returns its first observation ``[O]``."""
        episode.observation = _to_float64(episode.env.reset(seed=seed)[0])
        episode.number, episode.seed = self._num_episodes, seed
        episode.actions, episode.over = [], False
        self._num_episodes += 1
        return episode.observation

    def _step(
        self, episode: _RunningEpisode, action: NDArray[Any]
    ) -> tuple[NDArray[np.float64], float, bool, bool]:
        """Observation, reward, terminated and truncated after one step."""
        given = self._give(action)
        after, reward, terminated, truncated, _ = episode.env.step(given)
        self._num_steps += 1
        episode.step_token, episode.over = self._num_steps, bool(terminated or truncated)
        episode.actions.append(given)
        episode.observation = _to_float64(after)
        return episode.observation, float(reward), bool(terminated), bool(truncated)

    def state_dict(self) -> dict[str, Any]:
        """The seed and the actions of every episode under way."""
        return {
            "num_steps": self._num_steps,
            "num_episodes": self._num_episodes,
            "rows": [_saved(episode) for episode in self._rows],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the episodes by repeating their actions.

        Raises:
            RequestError: a repeated episode leads to another observation.
            StateError: the state does not fit.
        """
        require(state, self._schema())
        for row, saved in enumerate(state["rows"]):
            require(saved, self._row_schema(saved["over"]), f"rows/{row}")
            self._require_actions(saved["actions"], f"rows/{row}/actions")
            require(saved["step_token"], integer(0, state["num_steps"]), f"rows/{row}/step_token")
        self._rows = [self._restored(saved) for saved in state["rows"]]
        self._num_steps, self._num_episodes = state["num_steps"], state["num_episodes"]

    def _schema(self) -> Schema:
        rows = series(entries(dict.fromkeys(ROW_ENTRIES, anything) | {"over": flag}))
        return entries({"num_steps": integer(), "num_episodes": integer(), "rows": rows})

    def _row_schema(self, over: bool) -> Schema:
        """Of one environment's episode, whose observation is empty before the first step."""
        size = self._start_env.observation_space.shape
        observation: Schema = array(torch.float64, size or ())
        return entries(
            {
                "number": integer(),
                "seed": integer(0, 2**31 - 1),
                "step_token": integer(),
                "over": flag,
                "actions": anything,
                "observation": anything if over else observation,
            }
        )

    def _require_actions(self, saved: Any, path: str) -> None:
        space = self._start_env.action_space
        if isinstance(saved, Tensor) and saved.numel() == 0:
            return
        kind = torch.from_numpy(np.empty(0, dtype=space.dtype)).dtype
        count = len(saved) if isinstance(saved, Tensor) and saved.dim() else 0
        require(saved, array(kind, (count, *(space.shape or ()))), path)
        for step, action in enumerate(saved.numpy()):
            if not space.contains(action):
                raise StateError(f"{path}/{step}", "is no action of the environment")

    def _restored(self, saved: dict[str, Any]) -> _RunningEpisode:
        episode = _RunningEpisode(self._make(), saved["number"], saved["seed"])
        if saved["over"]:
            return episode
        self._reset(episode, saved["seed"])
        for action in saved["actions"].numpy():
            self._step(episode, action)
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


def _require_current(episode: _RunningEpisode, index: int, token: int) -> None:
    """Raises unless the token is that of the present state, or starts a new episode."""
    if token not in (EPISODE_START, episode.step_token):
        raise RequestError(
            f"environment {index} cannot step from an old state: it is an ordinary environment, "
            "which only goes forward, and it has gone on since. Step from the state that the last "
            "transition returned or from a fresh start, and let one vector environment at a time "
            "use this object"
        )
    if token != EPISODE_START and episode.over:
        raise RequestError(
            f"the episode of environment {index} has ended: begin a new one before the next step"
        )


def _require_equal(found: NDArray[np.floating], expected: NDArray[np.floating]) -> None:
    if not np.array_equal(found, expected, equal_nan=True):
        raise RequestError(
            "the environment is not repeatable: the same seed and the same actions led to "
            f"{expected} before and to {found} now. Let reset(seed=...) fix all that is random"
        )


def _to_float64(observation: Any) -> NDArray[np.float64]:
    """A copy, because environments may write to their arrays later."""
    return np.array(observation, dtype=np.float64)
