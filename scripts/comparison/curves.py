"""Curves of several seeds on one grid: interquartile mean, interval, least and greatest."""

import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np

from pgtoolkit.scripts.comparison.statistics import (
    BAND_RESAMPLES,
    Array,
    bootstrap_generator,
    bootstrap_interval,
    interquartile_mean,
)


@final
@dataclasses.dataclass(frozen=True)
class Curve:
    """One run's values over steps or seconds; ``x`` increases."""

    x: Array
    y: Array


@final
@dataclasses.dataclass(frozen=True)
class Band:
    """Statistics over the seeds at each point of a grid, all ``[G]``.

    The interval is NaN where there is one seed.
    """

    x: Array
    iqm: Array
    low: Array
    high: Array
    least: Array
    greatest: Array

    def as_dict(self) -> dict[str, list[float | None]]:
        """Lists, with None for NaN, which JSON cannot hold."""
        columns = dataclasses.asdict(self)
        return {
            name: [float(value) if np.isfinite(value) else None for value in column]
            for name, column in columns.items()
        }


def band(curves: Sequence[Curve]) -> Band:
    """The statistics over the seeds of their curves, at least one."""
    grid = common_grid([curve.x for curve in curves])
    # Linear between the points of a curve, which are evaluations.
    values = np.stack([np.interp(grid, curve.x, curve.y) for curve in curves])
    intervals = [
        bootstrap_interval(column, bootstrap_generator(), BAND_RESAMPLES) for column in values.T
    ]
    return Band(
        x=grid,
        iqm=interquartile_mean(values),
        low=np.array([interval.low for interval in intervals]),
        high=np.array([interval.high for interval in intervals]),
        least=values.min(axis=0),
        greatest=values.max(axis=0),
    )


def common_grid(xs: Sequence[Array]) -> Array:
    """The points at which curves are compared.

    Curves at the same points keep them. Others, such as those over CPU seconds, are compared at
    equal distances on the range that all of them have, at as many points as the shortest has. Where
    no range is common, one point is left: the middle of the gap.
    """
    first = xs[0]
    if all(len(x) == len(first) and np.array_equal(x, first) for x in xs):
        return first
    start, end = max(x[0] for x in xs), min(x[-1] for x in xs)
    if end <= start:
        return np.array([(start + end) / 2])
    return np.linspace(start, end, max(2, min(len(x) for x in xs)))
