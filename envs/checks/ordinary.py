"""Checks of an ordinary ``gymnasium.Env`` through ``reset`` and ``step``."""

from collections.abc import Callable, Iterator

import numpy as np
from gymnasium import spaces

from pgtoolkit.envs.checks import numbers
from pgtoolkit.envs.checks.episodes import (
    TIME_AS_TERMINATION,
    common_length,
    names_its_horizon,
)
from pgtoolkit.envs.checks.finding import Check, Finding, has_fault
from pgtoolkit.envs.checks.ordinary_play import MAX_EPISODE_STEPS, PlayRecord, play_episodes
from pgtoolkit.envs.checks.outputs import check_outputs
from pgtoolkit.envs.checks.reproducible import check_seeding
from pgtoolkit.envs.checks.rounding import check_rounding
from pgtoolkit.envs.registry.allowed_actions import with_allowed_actions
from pgtoolkit.gymnasium_types import AnyEnv

UNUSABLE = ("types", "shapes", "results")
"""Checks without which no other one can run."""


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
    env = with_allowed_actions(make())
    blamed = env.unwrapped
    progress("types")
    types = Check("interface", "types")
    found = types.run(blamed, lambda: check_outputs(env, seed))
    if has_fault(found, *UNUSABLE):
        reason = "until reset and step return what they should"
        return [*found, Check("behaviour", "the rest").not_checked(reason)]
    if not has_fault(found):
        found.append(types.passed("observations and rewards are what spaces say"))
    progress("seeding")
    found += Check("behaviour", "seeding").run(blamed, lambda: check_seeding(env, seed))
    if not has_fault(found):
        found += Check("behaviour", "rounding").run(blamed, lambda: check_rounding(env, seed))
    progress("random play")
    play = Check("behaviour", "random play")
    found += play.run(blamed, lambda: _check_play(env, play_episodes(env, seed, seconds), blamed))
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
        yield from numbers.check_inside(env.observation_space, observations, numbers.INSIDE.warning)
    yield from numbers.check_scale(played.observations, played.rewards)


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
    if not played.episodes:
        return check.not_checked(
            f"no episode ended in the time allowed, within {played.unfinished} steps (--seconds)"
        )
    return check.passed(_describe_ends(played, length))


def _describe_ends(played: PlayRecord, length: int | None) -> str:
    if length is not None:
        return f"all after {length} step{'s' * (length > 1)}, which is part of the task"
    terminated = sum(e.terminated for e in played.episodes)
    lengths = [e.length for e in played.episodes]
    return (
        f"{len(played.episodes)} episodes seen, of {min(lengths)} to {max(lengths)} steps; "
        f"{terminated} terminated"
    )
