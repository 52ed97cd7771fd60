"""Statistics over seeds: interquartile mean and bootstrap intervals.

After Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice",
and the code that belongs to it (rliable).
"""

from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.seeding import stream_seed

TRIMMED_SHARE = 0.25

RESAMPLES, BAND_RESAMPLES = 10_000, 2_000
"""Resamples for one interval, and for the interval at each point of a curve."""

CONFIDENCE = 0.95

Array = NDArray[np.float64]


@final
class Interval(NamedTuple):
    """The ends of an interval; NaN where there is none."""

    low: float
    high: float


def interquartile_mean(values: Array) -> Array:
    """The mean over the first axis without the lowest and the highest quarter.

    Of ``n`` values, ``floor(n / 4)`` are left out at either end: none of 3, and 2 of 10, as
    ``scipy.stats.trim_mean(values, 0.25)`` does.

    Args:
        values: ``[n, ...]``.

    Returns:
        ``[...]``.
    """
    count = len(values)
    cut = int(TRIMMED_SHARE * count)
    mean: Array = np.sort(values, axis=0)[cut : count - cut].mean(axis=0)
    return mean


def bootstrap_interval(
    values: Array, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """The 95 % percentile bootstrap interval of the interquartile mean of ``[n]`` values.

    ``n`` of the values are drawn with replacement ``resamples`` times; the ends are quantiles of
    their interquartile means. One value has no interval. The interval of few values is too narrow:
    that of 3 covers the truth in less than 95 % of experiments.

    Args:
        values: one number for each seed.
        generator: draws the resamples.
        resamples: their number.
    """
    count = len(values)
    if count < 2:
        return Interval(np.nan, np.nan)
    drawn = values[generator.integers(count, size=(count, resamples))]
    ends = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low, high = np.quantile(interquartile_mean(drawn), ends)
    return Interval(float(low), float(high))


def bootstrap_generator() -> np.random.Generator:
    """The generator of every interval: the same values have the same interval."""
    return np.random.default_rng(stream_seed(0, "bootstrap"))
