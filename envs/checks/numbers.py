"""Checks of the numbers that an environment gives out: finite, in their space, of a fit size."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.envs.checks.finding import Finding, fault, passed, warned

Numbers = NDArray[Any]

LARGE, SMALL = 1e3, 1e-4


def check_finite(starts: Numbers, observations: Numbers, rewards: Numbers) -> Iterator[Finding]:
    """NaN and infinity, at resets and on the way.

    Args:
        starts: ``[K, O]`` observations after resets.
        observations: ``[M, O]`` after steps.
        rewards: ``[M]``.
    """
    wrong = []
    bad = _bad_rows(starts)
    if bad.any():
        dims = _dimensions(_bad_rows(starts[bad].T))
        wrong.append(f"NaN or infinity at a reset: {dims} in {bad.sum()} of {len(bad)} starts")
    bad = _bad_rows(observations)
    if bad.any():
        dims = _dimensions(_bad_rows(observations[bad].T))
        wrong.append(f"NaN or infinity after {bad.sum()} of {len(bad)} steps: {dims}")
    bad = ~np.isfinite(rewards)
    if bad.any():
        wrong.append(f"the reward is NaN or infinite after {bad.sum()} of {len(bad)} steps")
    if wrong:
        yield fault(
            "behaviour",
            "finite",
            "; ".join(wrong),
            "the first such number stops a run, or spoils the policy",
            "look for 0/0, square roots and logarithms of 0, and speeds without a limit",
        )
    else:
        total = len(observations)
        yield passed("behaviour", "finite", f"{len(starts)} starts and {total} steps are finite")


def check_start_states(leaves: dict[str, Numbers]) -> Iterator[Finding]:
    """NaN in start states ``{name: [K, ...]}``, which the observation need not show."""
    for name, values in leaves.items():
        bad = _bad_rows(values.reshape(len(values), -1))
        if bad.any():
            yield fault(
                "behaviour",
                "finite",
                f"NaN or infinity at a reset: {name} in {bad.sum()} of {len(bad)} starts",
                "whatever depends on it becomes NaN, its gradient at once",
                "look at initial, and at what it divides by",
            )


def check_inside(space: Box, observations: Numbers) -> Iterator[Finding]:
    """Observations lie in their space, up to rounding."""
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    size = np.where(np.isfinite(high - low), high - low, np.maximum(np.abs(low), np.abs(high)))
    slack = 1e-5 * np.where(np.isfinite(size), size, 1.0)
    with np.errstate(invalid="ignore"):
        outside = (observations < low - slack) | (observations > high + slack)
    if outside.any():
        i = int(outside.sum(0).argmax())
        which = _dimensions(np.asarray(outside.any(0)))
        column = observations[:, i]
        yield fault(
            "behaviour",
            "observation space",
            f"observations are out of their space: {which}; observation[{i}] is "
            f"from {np.nanmin(column):.4g} to {np.nanmax(column):.4g}, its space says "
            f"{low[i]:.4g} to {high[i]:.4g}",
            "wrappers and other libraries clip or rescale by these bounds",
            "widen the bounds (infinity where there is none), or clip the observation",
        )
    else:
        yield passed("behaviour", "observation space", "all observations are inside")


def check_scale(observations: Numbers, rewards: Numbers) -> Iterator[Finding]:
    """Sizes that networks and step sizes are made for."""
    with np.errstate(invalid="ignore", over="ignore"):
        mean, size = np.nanmean(np.abs(rewards)), np.nanmean(np.abs(observations), axis=0)
        spread = np.nanstd(observations, axis=0)
    constant = spread <= 1e-12 * (1 + size)
    large, small = size > LARGE, (spread < SMALL) & ~constant
    if constant.any():
        yield warned(
            "behaviour",
            "constant observation",
            f"{_dimensions(constant)} never changes in random play",
            "it tells the policy nothing, and normalising divides by almost 0",
            "leave it out, unless longer or better play changes it",
        )
    if large.any() or small.any():
        which = _dimensions(large | small)
        i = int(np.flatnonzero(large | small)[0])
        yield warned(
            "behaviour",
            "observation scale",
            f"{which}: size {size[i]:.3g} on average, spread {spread[i]:.3g}",
            "networks learn best from inputs near 1",
            "rescale it, or leave --normalize-observations on",
        )
    else:
        yield passed("behaviour", "observation scale", f"sizes up to {size.max(initial=0):.3g}")
    if mean > LARGE or 0 < mean < SMALL:
        yield warned(
            "behaviour",
            "reward scale",
            f"the reward's size is {mean:.3g} on average",
            "value functions and step sizes are made for rewards near 1",
            "divide or multiply the reward by a constant",
        )
    else:
        low, high = float(np.nanmin(rewards)), float(np.nanmax(rewards))
        yield passed("behaviour", "reward scale", f"from {low:.3g} to {high:.3g} in random play")


def _bad_rows(values: Numbers) -> Numbers:
    return np.asarray(~np.isfinite(values).all(1))


def _dimensions(chosen: Numbers) -> str:
    index = np.flatnonzero(chosen)
    text = ", ".join(str(i) for i in index[:6])
    return f"observation[{text}{', ...' if len(index) > 6 else ''}]"
