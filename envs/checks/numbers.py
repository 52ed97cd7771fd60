"""Checks of the values that an environment returns: finite, in their space, of a suitable size."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.envs.checks.finding import Check, Finding

Numbers = NDArray[Any]

Problem = Callable[[str, str, str], Finding]
"""Makes a finding of what was seen, what it means and what to do."""

MAX_TYPICAL_SIZE, MIN_TYPICAL_SIZE = 1e3, 1e-4
"""Mean sizes of rewards and observations, and standard deviations, that need no rescaling."""

FINITE, INSIDE = Check("behaviour", "finite"), Check("behaviour", "observation space")


def check_finite(starts: Numbers, observations: Numbers, rewards: Numbers) -> Iterator[Finding]:
    """Observations and rewards have no NaN and no infinity.

    Args:
        starts: ``[K, O]`` observations after resets.
        observations: ``[M, O]`` observations after steps.
        rewards: ``[M]``.
    """
    wrong = []
    bad = _bad_rows(starts)
    if bad.any():
        entries = _entries(_bad_rows(starts[bad].T))
        wrong.append(f"NaN or infinity at a reset: {entries} in {bad.sum()} of {len(bad)} starts")
    bad = _bad_rows(observations)
    if bad.any():
        entries = _entries(_bad_rows(observations[bad].T))
        wrong.append(f"NaN or infinity after {bad.sum()} of {len(bad)} steps: {entries}")
    bad = ~np.isfinite(rewards)
    if bad.any():
        wrong.append(f"the reward is NaN or infinite after {bad.sum()} of {len(bad)} steps")
    if wrong:
        yield FINITE.fault(
            "; ".join(wrong),
            "the first such number stops a run, or makes the policy NaN",
            "look for 0/0, square roots and logarithms of 0, and speeds without a limit",
        )
    else:
        yield FINITE.passed(f"{len(starts)} starts and {len(observations)} steps are finite")


def check_start_states(leaves: dict[str, Numbers]) -> Iterator[Finding]:
    """Start states have no NaN and no infinity, which the observation need not show.

    Args:
        leaves: ``[K, ...]`` by name, the tensors of ``K`` start states.
    """
    for name, values in leaves.items():
        bad = _bad_rows(values.reshape(len(values), -1))
        if bad.any():
            yield FINITE.fault(
                f"NaN or infinity at a reset: {name} in {bad.sum()} of {len(bad)} starts",
                "whatever depends on it becomes NaN, its gradient at once",
                "look at initial, and at what it divides by",
            )


def check_inside(space: Box, observations: Numbers, problem: Problem) -> Iterator[Finding]:
    """Observations ``[M, O]`` lie in their space, up to 1e-5 of its range.

    Args:
        space: the observation space.
        observations: ``[M, O]``.
        problem: makes the finding if they do not: a fault of an environment that is written for
            this package, a warning for any other, since training reads no bounds of observations.
    """
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    size = np.where(np.isfinite(high - low), high - low, np.maximum(np.abs(low), np.abs(high)))
    slack = 1e-5 * np.where(np.isfinite(size), size, 1.0)
    with np.errstate(invalid="ignore"):
        outside = (observations < low - slack) | (observations > high + slack)
    if outside.any():
        i = int(outside.sum(0).argmax())
        entries = _entries(np.asarray(outside.any(0)))
        column = observations[:, i]
        yield problem(
            f"observations are out of their space: {entries}; observation[{i}] is "
            f"from {np.nanmin(column):.4g} to {np.nanmax(column):.4g}, its space says "
            f"{low[i]:.4g} to {high[i]:.4g}",
            "wrappers and other libraries clip or rescale by these bounds",
            "widen the bounds (infinity where there is none), or clip the observation",
        )
    else:
        yield INSIDE.passed("all observations are inside")


def check_scale(observations: Numbers, rewards: Numbers) -> Iterator[Finding]:
    """Observations ``[M, O]`` vary, and they and the rewards ``[M]`` have a suitable size."""
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.nanmean(np.abs(observations), axis=0)
        std = np.nanstd(observations, axis=0)
        reward_size = float(np.nanmean(np.abs(rewards)))
    constant = std <= 1e-12 * (1 + size)
    if constant.any():
        yield Check("behaviour", "constant observation").warning(
            f"{_entries(constant)} never changes in random play",
            "it tells the policy nothing, and normalising divides by almost 0",
            "leave it out, unless longer or better play changes it",
        )
    yield _observation_scale(size, std, constant)
    yield _reward_scale(reward_size, rewards)


def _observation_scale(size: Numbers, std: Numbers, constant: Numbers) -> Finding:
    check = Check("behaviour", "observation scale")
    extreme = (size > MAX_TYPICAL_SIZE) | ((std < MIN_TYPICAL_SIZE) & ~constant)
    if not extreme.any():
        return check.passed(f"mean sizes up to {size.max(initial=0):.3g} in random play")
    i = int(np.flatnonzero(extreme)[0])
    return check.warning(
        f"{_entries(extreme)}: size {size[i]:.3g} on average, standard deviation {std[i]:.3g}",
        "networks learn best from inputs near 1",
        "rescale it, or leave --normalize-observations on",
    )


def _reward_scale(size: float, rewards: Numbers) -> Finding:
    check = Check("behaviour", "reward scale")
    if size > MAX_TYPICAL_SIZE or 0 < size < MIN_TYPICAL_SIZE:
        return check.warning(
            f"the reward's size is {size:.3g} on average",
            "value functions and step sizes are made for rewards near 1",
            "divide or multiply the reward by a constant",
        )
    low, high = float(np.nanmin(rewards)), float(np.nanmax(rewards))
    return check.passed(f"from {low:.3g} to {high:.3g} in random play")


def _bad_rows(values: Numbers) -> Numbers:
    """``[N]`` bool: rows of ``[N, D]`` with a NaN or an infinity."""
    return np.asarray(~np.isfinite(values).all(1))


def _entries(chosen: Numbers) -> str:
    """``observation[0, 2]``: the indices at which ``chosen`` ``[O]`` is true, six at most."""
    index = np.flatnonzero(chosen)
    text = ", ".join(str(i) for i in index[:6])
    return f"observation[{text}{', ...' if len(index) > 6 else ''}]"
