"""When a trial ends early: its evaluations against those of the complete trials, as pure functions.

The evaluations of a trial are told at points that all trials share: ``seed * total_steps + steps``,
with the steps at which evaluations are due. A run is evaluated after whole windows, and the sizes
of windows may be searched. So between the evaluations of a run its return is interpolated.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, final

import numpy as np

from pgtoolkit.scripts.comparison.curves import Curve

FULL_TRIALS = 5
"""Complete trials before any is pruned."""

FACTOR = 3
"""Successive halving lets one of so many trials go on at each rung."""

WARM_UP = 0.2
"""Share of each seed's steps in which no trial is pruned."""

Values = Mapping[int, float]
"""Point to mean return over the seeds so far."""


@final
class Points:
    """The points at which the trials of a study are compared.

    Args:
        total_steps: environment steps of a run.
        interval: environment steps between evaluations; 0 for none.
        seeds: number of runs of a trial.
    """

    def __init__(self, total_steps: int, interval: int, seeds: int) -> None:
        count = max(1, round(total_steps / interval)) if interval else 0
        self.total_steps, self.seeds = total_steps, seeds
        self.steps = [total_steps * (k + 1) // count for k in range(count)]

    def point(self, seed_index: int, steps: int) -> int:
        return seed_index * self.total_steps + steps

    def segment(self, point: int) -> range:
        """The points of the same seed up to this one."""
        first = (point - 1) // self.total_steps * self.total_steps
        return range(first + 1, point + 1)

    def is_rung(self, point: int) -> bool:
        """Whether trials are compared here by successive halving.

        The rungs are a third of each seed's steps, a ninth and so on, to the first evaluation.
        """
        steps, last = (point - 1) % self.total_steps + 1, len(self.steps)
        places = [k for k, at in enumerate(self.steps, 1) if at == steps]
        rungs = {round(last / FACTOR**k) for k in range(1, last)} - {0}
        return bool(places) and places[0] in rungs

    def may_prune(self, point: int) -> bool:
        """Whether a trial may be pruned here: after the warm-up of a seed, and before the end."""
        steps = (point - 1) % self.total_steps + 1
        last = point == self.seeds * self.total_steps
        return steps > WARM_UP * self.total_steps and not last


def values_at_points(curves: Sequence[tuple[Curve | None, bool]], points: Points) -> Values:
    """The mean return over the seeds so far, at each point that has been reached.

    Args:
        curves: of each seed that has begun, in order, the evaluations and whether the run has
            ended; only the last of them may not have.
        points: where.
    """
    found: dict[int, float] = {}
    before: list[Curve] = []
    for index, (curve, ended) in enumerate(curves):
        if curve is None or len(curve.x) == 0:
            break
        reached = [s for s in points.steps if ended or s <= curve.x[-1]]
        for steps in reached:
            returns = [float(np.interp(steps, c.x, c.y)) for c in (*before, curve)]
            found[points.point(index, steps)] = sum(returns) / len(returns)
        before.append(curve)
    return found


def falls_behind(own: Values, complete: Sequence[Values], point: int, points: Points) -> bool:
    """Whether a trial is worse than half of the complete ones at a point.

    Its best value among the points of the same seed up to this one is compared with the median of
    theirs at this point, so that a single bad evaluation does not end a trial.

    Args:
        own: the trial's values up to the point.
        complete: those of the complete trials.
        point: the point.
        points: all points of the study.
    """
    others = [values[point] for values in complete if point in values]
    if len(others) < FULL_TRIALS or not points.may_prune(point):
        return False
    best = max(own[each] for each in points.segment(point) if each in own)
    return best < statistics.median(others)


def falls_out(own: Values, others: Sequence[Values], point: int, points: Points) -> bool:
    """Whether a trial is not among the best third of those that have come to a rung.

    Asynchronous successive halving (Li et al. 2020, ASHA, with a factor of 3): trials are compared
    at the rungs of :meth:`Points.is_rung`, each with those that have been there, complete or not,
    without waiting for the others.

    Args:
        own: the trial's values up to the point.
        others: those of all other trials.
        point: the point.
        points: all points of the study.
    """
    if not points.is_rung(point):
        return False
    better = sum(values[point] > own[point] for values in others if point in values)
    there = 1 + sum(point in values for values in others)
    return better >= max(1, there // FACTOR)


Rule = Callable[[Values, Sequence[Values], int, Points], bool]
"""Whether a trial ends at a point: from its own values, those of others, the point and all."""


@final
class Pruning(NamedTuple):
    """A rule by which trials end early."""

    rule: Rule
    only_complete: bool
    """Whether the trial is compared with complete trials alone."""


PruneName = Literal["median", "asha", "none"]

RULES = {"median": Pruning(falls_behind, True), "asha": Pruning(falls_out, False)}
