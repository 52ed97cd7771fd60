"""Checks of an ordinary ``gymnasium.Env`` through ``reset`` and ``step``."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from pgtoolkit.envs.checks import numbers
from pgtoolkit.envs.checks.episodes import (
    NOT_REPRODUCIBLE,
    TIME_AS_TERMINATION,
    Episode,
    common_length,
    names_its_horizon,
)
from pgtoolkit.envs.checks.finding import Check, Finding, has_fault
from pgtoolkit.envs.checks.purity import changes_with, example_calls, touched_by
from pgtoolkit.errors import single_line
from pgtoolkit.gymnasium_types import AnyEnv

MAX_EPISODES = 8

MAX_EPISODE_STEPS = 3000

MAX_RESETS = 200
"""Resets after play, to see more start states."""

OBSERVATION_ADVICE = (
    "return np.asarray(observation, dtype=self.observation_space.dtype) of the space's shape"
)

SHAPE_MEANING = "windows are built of rows of one shape"

SEEDING_PROBLEM = (
    NOT_REPRODUCIBLE,
    "call super().reset(seed=seed), and draw from self.np_random alone",
)
"""Meaning and advice of faults in seeding."""


class PlayRecord(NamedTuple):
    """Observations, rewards and lengths of several episodes, and of several resets."""

    starts: NDArray[Any]
    """``[K, O]`` observations after resets."""
    observations: NDArray[Any]
    """``[M, O]`` observations after steps."""
    rewards: NDArray[Any]
    """``[M]`` rewards of the same steps."""
    episodes: list[Episode]
    """The episodes that ended."""
    unfinished: int
    """Steps of the longest episode that did not end."""
    steps_per_second: float


def check_ordinary(
    make: Callable[[], AnyEnv], *, seed: int, seconds: float, progress: Callable[[str], None]
) -> list[Finding]:
    """All checks of an ordinary environment, in order.

    Args:
        make: makes the environment.
        seed: seeds resets and actions.
        seconds: about how long random play may take.
        progress: called with the name of each stage.
    """
    env = make()
    blamed = env.unwrapped
    progress("types and seeding")
    types = Check("interface", "types")
    found = types.run(blamed, lambda: check_types(env, seed))
    if not has_fault(found):
        found.append(types.passed("observations and rewards are what spaces say"))
    found += Check("behaviour", "seeding").run(blamed, lambda: check_seeding(env, seed))
    progress("random play")
    play = Check("behaviour", "random play")
    found += play.run(blamed, lambda: _check_play(env, play_episodes(env, seed, seconds), blamed))
    found.append(_pathwise_use(env))
    env.close()
    return found


def _check_play(env: AnyEnv, played: PlayRecord, blamed: object) -> Iterator[Finding]:
    yield from Check("behaviour", "numbers").run(blamed, lambda: _check_numbers(env, played))
    yield check_termination(env, played)
    speed = f"about {played.steps_per_second:,.0f} steps/s"
    yield Check("behaviour", "throughput").passed(speed)


def _check_numbers(env: AnyEnv, played: PlayRecord) -> Iterator[Finding]:
    yield from numbers.check_finite(played.starts, played.observations, played.rewards)
    if isinstance(env.observation_space, spaces.Box):
        observations = np.concatenate([played.starts, played.observations])
        yield from numbers.check_inside(env.observation_space, observations)
    yield from numbers.check_scale(played.observations, played.rewards)


def check_types(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """Observations have the shape and dtype of their space, and rewards are scalars."""
    shapes, dtypes = Check("interface", "shapes"), Check("interface", "dtype")
    env.action_space.seed(seed)
    first = env.reset(seed=seed)[0]
    obs, reward, *_ = env.step(env.action_space.sample())
    space = env.observation_space
    for name, given in (("reset", first), ("step", obs)):
        if not isinstance(space, spaces.Box):
            continue
        array = np.asarray(given)
        if array.shape != space.shape:
            yield shapes.fault(
                f"{name} returned an observation {list(array.shape)}, its space has "
                f"{list(space.shape)}",
                SHAPE_MEANING,
                OBSERVATION_ADVICE,
            )
        elif array.dtype != space.dtype:
            yield dtypes.fault(
                f"{name} returned an observation of {array.dtype}, its space says {space.dtype}",
                "digits are lost, or wrappers and other libraries refuse the observation",
                OBSERVATION_ADVICE,
            )
    scalar: Any = reward
    if np.ndim(scalar) != 0:
        yield shapes.fault(
            f"step returned a reward of shape {list(np.shape(scalar))}: it must be one number",
            SHAPE_MEANING,
            "return float(reward)",
        )


def check_seeding(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """An episode is determined by its seed and actions, and draws from no global generator."""
    seeding = Check("behaviour", "seeding")

    def run() -> object:
        return _short_episode(env, seed)

    libraries = changes_with(run, _same_episode)
    touched = [] if libraries else touched_by(run)
    if libraries or touched:
        calls = example_calls(libraries or touched)
        text = f"global randomness: an episode draws from, or seeds, {calls}"
        yield seeding.fault(text, *SEEDING_PROBLEM)
        return
    if not _same_episode(run(), run()):
        text = "not deterministic: the same seed and actions give different episodes"
        yield Check("behaviour", "determinism").fault(text, *SEEDING_PROBLEM)
        return
    seeded = [_short_episode(env, s, 1)[0] for s in range(seed, seed + 6)]
    unseeded = [flatten(env.observation_space, env.reset()[0]) for _ in range(6)]
    ignored = not _vary(seeded) and _vary(unseeded)
    if ignored and _same_episode(_short_episode(env, seed), _short_episode(env, seed + 1)):
        text = "the seed is ignored: different seeds give the same start, resets without one do not"
        yield seeding.fault(text, *SEEDING_PROBLEM)
    elif not _vary(seeded):
        yield seeding.passed("same seed, same episode; every start is the same")
    else:
        yield seeding.passed("same seed, same episode; another seed, another start")


def _short_episode(env: AnyEnv, seed: int, steps: int = 12) -> list[NDArray[Any]]:
    """Observations and rewards of up to ``steps`` steps. The actions do not depend on the seed."""
    env.action_space.seed(0)
    found = [flatten(env.observation_space, env.reset(seed=seed)[0])]
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        found.append(flatten(env.observation_space, obs))
        found.append(np.asarray(reward, dtype=np.float64).ravel())
        if terminated or truncated:
            break
    return found


def _same_episode(a: object, b: object) -> bool:
    """Whether two results of :func:`_short_episode` are equal to the bit; NaN equals NaN."""
    assert isinstance(a, list) and isinstance(b, list)
    if len(a) != len(b):
        return False
    return all(
        x.shape == y.shape and np.array_equal(x, y, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def _vary(values: list[NDArray[Any]]) -> bool:
    return any(not np.array_equal(v, values[0], equal_nan=True) for v in values)


def check_termination(env: AnyEnv, played: PlayRecord) -> Finding:
    """Episodes end, and termination is not a time limit."""
    check = Check("behaviour", "termination")
    length = common_length(played.episodes)
    limit = length or 1
    if limit > 1 and not names_its_horizon(env.unwrapped, limit):
        return check.fault(
            f"a time limit is reported as termination: all {len(played.episodes)} episodes "
            f"terminate after {limit} steps, whatever start and actions",
            TIME_AS_TERMINATION,
            "return truncated=True there, or leave it to gymnasium's TimeLimit (max_episode_steps)",
        )
    if not played.episodes and played.unfinished >= MAX_EPISODE_STEPS:
        return check.warning(
            f"no episode ended within {MAX_EPISODE_STEPS} steps of random play",
            "agents that wait for whole episodes wait for ever",
            "give it a time limit (gymnasium.wrappers.TimeLimit, or max_episode_steps)",
        )
    return check.passed(_describe_ends(played, length))


def _describe_ends(played: PlayRecord, length: int | None) -> str:
    if length is not None:
        return f"all after {length} step{'s' * (length > 1)}, which is part of the task"
    terminated = sum(e.terminated for e in played.episodes)
    lengths = [e.length for e in played.episodes] or [played.unfinished]
    return (
        f"{len(played.episodes)} episodes seen, of {min(lengths)} to {max(lengths)} steps; "
        f"{terminated} terminated"
    )


def _pathwise_use(env: AnyEnv) -> Finding:
    """Whether an adapter can give the environment a gradient."""
    check = Check("gradients", "gradient")
    space = env.action_space
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return check.passed("none of its own: reinforce can use it, pathwise agents by an adapter")
    return check.passed(
        f"none, and none by an adapter: actions are {single_line(space)}; use reinforce"
    )


def play_episodes(env: AnyEnv, seed: int, seconds: float) -> PlayRecord:
    """Plays up to 8 episodes of up to 3000 steps, at least a part of one, then only resets.

    Args:
        env: the environment.
        seed: seeds actions and the first episode; the next episodes get the following seeds.
        seconds: time for the episodes; the resets get a third of it.
    """
    env.action_space.seed(seed)
    began = time.monotonic()
    starts, observations, rewards, episodes = [], [], [], []
    unfinished = 0
    for number in range(MAX_EPISODES):
        act = _ways_to_act(env.action_space)[number % 4]
        starts.append(flatten(env.observation_space, env.reset(seed=seed + number)[0]))
        for length in range(1, MAX_EPISODE_STEPS + 1):
            obs, reward, terminated, truncated, _ = env.step(act())
            observations.append(flatten(env.observation_space, obs))
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


def _more_starts(env: AnyEnv, seconds: float) -> list[NDArray[Any]]:
    began = time.monotonic()
    starts = []
    for number in range(MAX_RESETS):
        starts.append(flatten(env.observation_space, env.reset(seed=1000 + number)[0]))
        if time.monotonic() - began > seconds:
            break
    return starts


def flatten(space: spaces.Space[Any], value: Any) -> NDArray[Any]:
    """A value of any space as a float64 row."""
    if isinstance(space, spaces.Box) or not space.is_np_flattenable:
        return np.asarray(value, dtype=np.float64).ravel()
    return np.asarray(spaces.flatten(space, value), dtype=np.float64).ravel()


def _ways_to_act(space: spaces.Space[Any]) -> list[Callable[[], Any]]:
    """Four ways: random twice, then always the lowest and always the highest action, if any."""
    if isinstance(space, spaces.Box) and space.is_bounded("both"):
        return [space.sample, space.sample, lambda: space.low.copy(), lambda: space.high.copy()]
    if isinstance(space, spaces.Discrete):
        first, last = int(space.start), int(space.start + space.n - 1)
        return [space.sample, space.sample, lambda: np.int64(first), lambda: np.int64(last)]
    return [space.sample] * 4
