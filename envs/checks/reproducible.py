"""Checks that the seed and the actions determine the episodes of an ordinary environment."""

from collections.abc import Callable, Iterator

import numpy as np

from pgtoolkit.envs.checks.episodes import NOT_REPRODUCIBLE
from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.checks.ordinary_play import (
    Row,
    flatten,
    resumed_episodes,
    same_rows,
    seeded_actions,
    short_episode,
)
from pgtoolkit.envs.checks.purity import Library, changes_with, example_calls, touched_by
from pgtoolkit.gymnasium_types import AnyEnv

SEEDING, DETERMINISM = Check("behaviour", "seeding"), Check("behaviour", "determinism")

RESETS = Check("behaviour", "resets without a seed")

DRAW_FROM_NP_RANDOM = "call super().reset(seed=seed), and draw from self.np_random alone"
"""Advice for an environment with randomness of its own."""

SEEDING_PROBLEM = NOT_REPRODUCIBLE, DRAW_FROM_NP_RANDOM
"""Meaning and advice of faults in seeding."""


def check_seeding(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """An episode is determined by its seed and actions, and draws from no global generator.

    So are those that follow, whose resets have no seed.
    """

    def run() -> object:
        return _episode(env, seed)

    libraries = _global_generators(run)
    if libraries:
        text = f"global randomness: an episode draws from, or seeds, {example_calls(libraries)}"
        yield SEEDING.fault(text, *SEEDING_PROBLEM)
    elif not same_rows(run(), run()):
        yield _not_deterministic(env)
    else:
        yield _use_of_the_seed(env, seed)
        yield _check_resets(env, seed)


def _global_generators(run: Callable[[], object]) -> list[Library]:
    """The libraries whose global generator changes the episode; else those that it touches.

    Code that touches no generator cannot depend on one, which saves most of the runs.
    """
    touched = touched_by(run)
    return (changes_with(run, same_rows) or touched) if touched else []


def _not_deterministic(env: AnyEnv) -> Finding:
    text = "not deterministic: the same seed and actions give different episodes"
    if env.spec is not None and env.spec.nondeterministic:
        return DETERMINISM.warning(f"{text}, as its registration says", *SEEDING_PROBLEM)
    return DETERMINISM.fault(text, *SEEDING_PROBLEM)


def _use_of_the_seed(env: AnyEnv, seed: int) -> Finding:
    """Whether different seeds give different starts, where starts differ at all."""
    seeded = [flatten(env.observation_space, env.reset(seed=seed + i)[0]) for i in range(6)]
    if _vary(seeded):
        return SEEDING.passed("same seed, same episode; another seed, another start")
    unseeded = [flatten(env.observation_space, env.reset()[0]) for _ in range(6)]
    if _vary(unseeded) and same_rows(_episode(env, seed), _episode(env, seed + 1)):
        text = "the seed is ignored: different seeds give the same start, resets without one do not"
        return SEEDING.fault(text, *SEEDING_PROBLEM)
    return SEEDING.passed("same seed, same episode; every start is the same")


def _check_resets(env: AnyEnv, seed: int) -> Finding:
    """Episodes that start without a seed are determined by the seed of the first reset.

    Training seeds the first reset of each environment and no other.
    """

    def run() -> object:
        return resumed_episodes(env, seed)

    libraries = _global_generators(run)
    if libraries:
        cause = f"a reset without a seed draws from, or seeds, {example_calls(libraries)}"
    elif not same_rows(run(), run()):
        cause = "a reset without a seed draws from a generator that the seed before it does not set"
    else:
        return RESETS.passed("determined by the seed of the first reset")
    return RESETS.warning(
        cause,
        "training seeds only the first reset of an environment, so its runs cannot be repeated",
        f"{DRAW_FROM_NP_RANDOM}; a reset without a seed goes on with the same generator",
    )


def _episode(env: AnyEnv, seed: int) -> list[Row]:
    """A short episode whose actions do not depend on the seed."""
    return short_episode(env, seed, seeded_actions(env, 0))


def _vary(values: list[Row]) -> bool:
    return any(not np.array_equal(v, values[0], equal_nan=True) for v in values)
