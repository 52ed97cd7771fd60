"""Checks of an ordinary ``gymnasium.Env`` through its own two functions."""

import contextlib
import io
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.utils import env_checker
from numpy.typing import NDArray

from pgtoolkit.envs.checks.episodes import TIMED, Episode, common_length, names_its_horizon
from pgtoolkit.envs.checks.finding import Finding, class_files, fault, passed, warned, where
from pgtoolkit.envs.checks.purity import CALLS, Library, changes_with, touched_by
from pgtoolkit.errors import single_line
from pgtoolkit.gymnasium_types import AnyEnv

Trace = list[NDArray[Any]]

MOST_STEPS = 3000


class Played(NamedTuple):
    """What random and constant play showed."""

    starts: NDArray[Any]
    """``[K, O]``."""
    observations: NDArray[Any]
    """``[M, O]``."""
    rewards: NDArray[Any]
    """``[M]``."""
    episodes: list[Episode]
    """That ended."""
    unfinished: int
    """Steps of the longest that did not."""
    steps_per_second: float


def flat(space: spaces.Space[Any], value: Any) -> NDArray[Any]:
    """A value of any space as one row of numbers."""
    if isinstance(space, spaces.Box) or not space.is_np_flattenable:
        return np.asarray(value, dtype=np.float64).ravel()
    return np.asarray(spaces.flatten(space, value), dtype=np.float64).ravel()


def actions(space: spaces.Space[Any]) -> list[Callable[[], Any]]:
    """Ways to act: at random, always at one end, always at the other."""
    ways = [space.sample, space.sample]
    if isinstance(space, spaces.Box) and space.is_bounded("both"):
        return [*ways, lambda: space.low.copy(), lambda: space.high.copy()]
    if isinstance(space, spaces.Discrete):
        first, last = int(space.start), int(space.start + space.n - 1)
        return [*ways, lambda: np.int64(first), lambda: np.int64(last)]
    return [*ways, space.sample, space.sample]


def play_episodes(env: AnyEnv, seed: int, seconds: float) -> Played:
    """Whole episodes, one after the other, as many as time allows; at least a part of one."""
    env.action_space.seed(seed)
    began, steps = time.monotonic(), 0
    starts, observations, rewards, episodes = [], [], [], []
    unfinished = 0
    for number in range(EPISODES):
        ways = actions(env.action_space)
        act = ways[number % len(ways)]
        starts.append(flat(env.observation_space, env.reset(seed=seed + number)[0]))
        for length in range(1, MOST_STEPS + 1):
            obs, reward, terminated, truncated, _ = env.step(act())
            observations.append(flat(env.observation_space, obs))
            rewards.append(float(np.asarray(reward).reshape(-1)[0]))
            steps += 1
            if terminated or truncated:
                episodes.append(Episode(length, bool(terminated)))
                break
            if time.monotonic() - began > seconds:
                break
        else:
            length = MOST_STEPS
        if not (terminated or truncated):
            unfinished = max(unfinished, length)
        if time.monotonic() - began > seconds:
            break
    taken = time.monotonic() - began
    began = time.monotonic()
    for number in range(RESETS):
        starts.append(flat(env.observation_space, env.reset(seed=1000 + number)[0]))
        if time.monotonic() - began > seconds / 3:
            break
    columns = np.array(starts), np.array(observations), np.array(rewards)
    return Played(*columns, episodes, unfinished, steps / max(taken, 1e-9))


def check_types(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """Kinds, shapes and dtypes of what ``reset`` and ``step`` return."""
    env.action_space.seed(seed)
    first = env.reset(seed=seed)[0]
    obs, reward, *_ = env.step(env.action_space.sample())
    space = env.observation_space
    for name, given in (("reset", first), ("step", obs)):
        if not isinstance(space, spaces.Box):
            continue
        array = np.asarray(given)
        if array.shape != space.shape:
            text = f"{name} returned an observation {list(array.shape)}, its space has "
            yield fault("interface", "shapes", f"{text}{list(space.shape)}", BREAKS, OWED)
        elif array.dtype != space.dtype:
            text = f"{name} returned an observation of {array.dtype}, its space says {space.dtype}"
            yield fault("interface", "dtype", text, ROUNDS, OWED)
    paid: Any = reward
    if np.ndim(paid) != 0:
        text = f"step returned a reward of shape {list(np.shape(paid))}: it must be one number"
        yield fault("interface", "shapes", text, BREAKS, "return float(reward)")


def trace(env: AnyEnv, seed: int, steps: int = 12) -> Trace:
    """Observations and rewards of a short episode whose actions depend on the seed alone."""
    env.action_space.seed(0)
    found = [flat(env.observation_space, env.reset(seed=seed)[0])]
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        found += [flat(env.observation_space, obs), np.asarray(reward, dtype=np.float64).ravel()]
        if terminated or truncated:
            break
    return found


def same_trace(a: object, b: object) -> bool:
    """To the bit; NaN equals NaN."""
    assert isinstance(a, list) and isinstance(b, list)
    if len(a) != len(b):
        return False
    return all(
        x.shape == y.shape and np.array_equal(x, y, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def check_seeding(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """The seed decides all; no global generator does."""

    def run() -> object:
        return trace(env, seed)

    libraries = changes_with(run, same_trace)
    touched = [] if libraries else touched_by(run)
    if libraries or touched:
        names = _calls(libraries or touched)
        text = f"global randomness: an episode draws from, or seeds, {names}"
        yield fault("behaviour", "seeding", text, UNSEEDED, OWN_GENERATOR)
        return
    if not same_trace(run(), run()):
        text = "not deterministic: the same seed and actions give different episodes"
        yield fault("behaviour", "determinism", text, UNSEEDED, OWN_GENERATOR)
        return
    first = [trace(env, s, 1)[0] for s in range(seed, seed + 6)]
    again = [flat(env.observation_space, env.reset()[0]) for _ in range(6)]
    if not _vary(first) and _vary(again) and same_trace(trace(env, seed), trace(env, seed + 1)):
        text = "the seed is ignored: different seeds give the same start, resets without one do not"
        yield fault("behaviour", "seeding", text, UNSEEDED, OWN_GENERATOR)
    elif not _vary(first):
        yield passed("behaviour", "seeding", "same seed, same episode; every start is the same")
    else:
        yield passed("behaviour", "seeding", "same seed, same episode; another seed, another start")


def _vary(values: list[NDArray[Any]]) -> bool:
    return any(not np.array_equal(v, values[0], equal_nan=True) for v in values)


def _calls(libraries: list[Library]) -> str:
    return " and ".join(f"{CALLS[name]} (global)" for name in libraries)


def check_ends(env: AnyEnv, played: Played) -> Iterator[Finding]:
    """Termination, truncation, or neither."""
    length = common_length(played.episodes)
    timed = length or 1
    if timed > 1 and not names_its_horizon(env.unwrapped, timed):
        yield fault(
            "behaviour",
            "termination",
            f"a time limit is reported as termination: all {len(played.episodes)} episodes "
            f"terminate after {timed} steps, whatever start and actions",
            TIMED,
            "return truncated=True there, or leave it to gymnasium's TimeLimit (max_episode_steps)",
        )
    elif not played.episodes and played.unfinished >= MOST_STEPS:
        yield warned(
            "behaviour",
            "termination",
            f"no episode ended within {MOST_STEPS} steps of random play",
            "agents that wait for whole episodes wait for ever",
            "give it a time limit (gymnasium.wrappers.TimeLimit, or max_episode_steps)",
        )
    else:
        yield passed("behaviour", "termination", _ends(played, length))


def _ends(played: Played, length: int | None) -> str:
    if length is not None:
        return f"all after {length} step{'s' * (length > 1)}, which is part of the task"
    by_themselves = sum(e.terminated for e in played.episodes)
    lengths = [e.length for e in played.episodes] or [played.unfinished]
    return (
        f"{len(played.episodes)} episodes seen, of {min(lengths)} to {max(lengths)} steps; "
        f"{by_themselves} terminated"
    )


def check_pathwise_use(env: AnyEnv) -> Iterator[Finding]:
    """Could a pathwise agent use it by an adapter?"""
    space = env.action_space
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        text = "none of its own: reinforce can use it, pathwise agents by an adapter"
    else:
        text = f"none, and none by an adapter: actions are {single_line(space)}; use reinforce"
    yield passed("gradients", "gradient", text)


EPISODES, RESETS = 8, 200

BREAKS = "windows are built of rows of one shape"

ROUNDS = "digits are lost, or wrappers and other libraries refuse the observation"

OWED = "return np.asarray(observation, dtype=self.observation_space.dtype) of the space's shape"

UNSEEDED = "equal seeds do not give equal runs, or different seeds are one experiment"

OWN_GENERATOR = "call super().reset(seed=seed), and draw from self.np_random alone"


def check_with_gymnasium(env: AnyEnv, blamed: object) -> Iterator[Finding]:
    """``gymnasium.utils.env_checker.check_env``, without pictures.

    Args:
        env: without wrappers.
        blamed: whose code errors are looked for in.
    """

    def check() -> None:
        env_checker.check_env(env, skip_render_check=True, skip_close_check=True)

    yield from _reported("Gymnasium's checker", blamed, check)


def check_with_sb3(env: AnyEnv, blamed: object) -> Iterator[Finding]:
    """``stable_baselines3.common.env_checker.check_env``, if that package is there."""
    try:
        from stable_baselines3.common.env_checker import check_env
    except ImportError:
        yield passed("interface", "SB3's checker", "not checked: stable-baselines3 is missing")
        return
    yield from _reported("SB3's checker", blamed, lambda: check_env(env, skip_render_check=True))


def _reported(name: str, env: object, check: Callable[[], None]) -> Iterator[Finding]:
    silence = io.StringIO()
    with warnings.catch_warnings(record=True) as heard, contextlib.redirect_stdout(silence):
        warnings.simplefilter("always")
        try:
            check()
        except Exception as error:  # whatever the checker or the environment raises
            yield _error(name, env, error)
            return
    said = [text for w in heard if not _is_of_the_environment(w, env) and (text := _text(w))]
    said = [text for text in dict.fromkeys(said) if not any(known in text for known in KNOWN)]
    if said:
        more = f" (and {len(said) - 2} more)" if len(said) > 2 else ""
        text = " | ".join(said[:2]) + more
        advice = "see what each says; many are matters of taste"
        yield warned("interface", name, text, "other libraries may stumble over it", advice)
    else:
        yield passed("interface", name, "nothing to say")


def _error(name: str, env: object, error: Exception) -> Finding:
    text = _shortened(str(error))
    if isinstance(error, AssertionError) and any(known in text for known in ONLY_SB3):
        return warned("interface", name, text, "its agents refuse this space; ours do not", "-")
    if not isinstance(error, AssertionError):
        text = where(env, error)
    return fault(
        "interface",
        name,
        text,
        "the environment does not keep to Gymnasium's interface",
        "do as it says; https://gymnasium.farama.org/api/env",
    )


def _is_of_the_environment(warning: warnings.WarningMessage, env: object) -> bool:
    return warning.filename in class_files(env)


def _text(warning: warnings.WarningMessage) -> str:
    return _shortened(str(warning.message))


def _shortened(text: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("WARN: ", "")
    first = " ".join(plain.split())
    return first if len(first) <= LONGEST else first[: LONGEST - 3] + "..."


LONGEST = 160

KNOWN = (
    # A box without bounds is what most observations are.
    "A Box observation space minimum value is -infinity",
    "A Box observation space maximum value is infinity",
    "infinity",
    # We leave pictures out on purpose.
    "alternative render modes",
    # Every policy here rescales its actions to the box.
    "symmetric and normalized",
)

ONLY_SB3 = ("must have a finite lower and upper bound",)
