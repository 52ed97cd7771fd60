"""Play of an ordinary environment: seeded actions, short episodes to compare, and long ones."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from numpy.typing import NDArray

from pgtoolkit.envs.checks.episodes import Episode
from pgtoolkit.envs.ordinary.action_mask import ActionMask
from pgtoolkit.envs.registry.allowed_actions import with_allowed_actions
from pgtoolkit.envs.registry.ordinary import CHECKING_WRAPPERS, seeded_copy
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

MAX_EPISODES = 8

MAX_EPISODE_STEPS = 3000

MAX_RESETS = 200
"""Resets after play, to see more start states."""

MAX_NUMBERS = 2 * 10**7
"""Numbers of observations that are kept; images fill the memory otherwise."""

SHORT_STEPS = 12
"""Steps of the episodes that are played again to compare them."""

Row = NDArray[Any]
"""Numbers ``[D]``, float64."""

Act = Callable[[], Any]
"""Draws or chooses an action."""


class PlayRecord(NamedTuple):
    """Observations, rewards and lengths of several episodes, and of several resets."""

    starts: NDArray[Any]
    """``[K, O]`` observations after resets."""
    observations: NDArray[Any]
    """``[M, O]`` observations after steps; of the first ones only, where they are large."""
    rewards: NDArray[Any]
    """``[L]`` rewards of all steps."""
    episodes: list[Episode]
    """The episodes that ended."""
    unfinished: int
    """Steps of the longest episode that did not end."""
    steps_per_second: float


def without_added_wrappers(env: AnyEnv) -> AnyEnv:
    """The environment as its author gave it, without the wrappers that are put around it here.

    These are this package's own, those by which ``gymnasium.make`` checks and truncates, and the
    one that flattens observations. Actions that a mask forbids are still left out.
    """
    added = (*CHECKING_WRAPPERS, FlattenObservation)
    while (
        isinstance(env, gymnasium.Wrapper)
        and not isinstance(env, ActionMask)
        and (isinstance(env, added) or type(env).__module__.startswith("pgtoolkit."))
    ):
        env = env.env
    return with_allowed_actions(env)


def seeded_actions(env: AnyEnv, seed: int) -> Act:
    """Draws actions that depend on nothing but the seed."""
    return seeded_copy(env.action_space, seed).sample


def short_episode(env: AnyEnv, seed: int, act: Act, steps: int = SHORT_STEPS) -> list[Row]:
    """Observations and rewards of up to ``steps`` steps after a reset with the seed."""
    start = flatten(env.observation_space, env.reset(seed=seed)[0])
    return [start, *_steps(env, act, steps)]


def resumed_episodes(env: AnyEnv, seed: int, resets: int = 3) -> list[Row]:
    """What follows a seeded reset and a step: resets without a seed, each with two steps."""
    act = seeded_actions(env, 0)
    found = short_episode(env, seed, act, 1)
    for _ in range(resets):
        found.append(flatten(env.observation_space, env.reset()[0]))
        found += _steps(env, act, 2)
    return found


def _steps(env: AnyEnv, act: Act, steps: int) -> Iterator[Row]:
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(act())
        yield flatten(env.observation_space, obs)
        yield np.asarray(reward, dtype=np.float64).ravel()
        if terminated or truncated:
            return


def same_rows(a: object, b: object) -> bool:
    """Whether two lists of rows are equal to the bit; NaN equals NaN."""
    assert isinstance(a, list) and isinstance(b, list)
    if len(a) != len(b):
        return False
    return all(
        x.shape == y.shape and np.array_equal(x, y, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def play_episodes(env: AnyEnv, seed: int, seconds: float) -> PlayRecord:
    """Plays up to 8 episodes of up to 3000 steps, at least a part of one, then only resets.

    Args:
        env: the environment.
        seed: seeds actions and the first episode; the next episodes get the following seeds.
        seconds: time for the episodes; the resets get a third of it.
    """
    ways = _ways_to_act(seeded_copy(env.action_space, seed))
    began = time.monotonic()
    starts: list[Row] = []
    observations: list[Row] = []
    rewards: list[float] = []
    episodes: list[Episode] = []
    unfinished = 0
    for number in range(MAX_EPISODES):
        act = ways[number % 4]
        starts.append(flatten(env.observation_space, env.reset(seed=seed + number)[0]))
        for length in range(1, MAX_EPISODE_STEPS + 1):
            obs, reward, terminated, truncated, _ = env.step(act())
            row = flatten(env.observation_space, obs)
            if (len(observations) + 1) * row.size <= MAX_NUMBERS:
                observations.append(row)
            rewards.append(float(np.asarray(reward).reshape(-1)[0]))
            if terminated or truncated:
                episodes.append(Episode(length, bool(terminated)))
                break
            if time.monotonic() - began > seconds:
                break
        if not (terminated or truncated):
            unfinished = max(unfinished, length)
        if time.monotonic() - began > seconds:
            break
    duration = max(time.monotonic() - began, 1e-9)
    starts += _more_starts(env, seconds / 3)
    columns = np.array(starts), np.array(observations), np.array(rewards)
    return PlayRecord(*columns, episodes, unfinished, len(rewards) / duration)


def _more_starts(env: AnyEnv, seconds: float) -> list[Row]:
    began = time.monotonic()
    starts = []
    for number in range(MAX_RESETS):
        starts.append(flatten(env.observation_space, env.reset(seed=1000 + number)[0]))
        too_large = (len(starts) + 1) * starts[0].size > MAX_NUMBERS
        if too_large or time.monotonic() - began > seconds:
            break
    return starts


def flatten(space: spaces.Space[Any], value: Any) -> Row:
    """A value of any space as a float64 row.

    Raises:
        RequestError: it has not the shape of the space.
    """
    if not isinstance(space, spaces.Box) and space.is_np_flattenable:
        return np.asarray(spaces.flatten(space, value), dtype=np.float64).ravel()
    row = np.asarray(value, dtype=np.float64)
    if isinstance(space, spaces.Box) and row.shape != space.shape:
        raise RequestError(
            f"an observation has the shape {list(row.shape)}, its space has {list(space.shape)}"
        )
    return row.ravel()


def _ways_to_act(space: spaces.Space[Any]) -> list[Act]:
    """Four ways: random twice, then always the lowest and always the highest action, if any."""
    if isinstance(space, spaces.Box) and space.is_bounded("both"):
        return [space.sample, space.sample, lambda: space.low.copy(), lambda: space.high.copy()]
    if isinstance(space, spaces.Discrete):
        first, last = int(space.start), int(space.start + space.n - 1)
        return [space.sample, space.sample, lambda: np.int64(first), lambda: np.int64(last)]
    return [space.sample] * 4
