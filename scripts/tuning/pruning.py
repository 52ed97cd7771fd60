"""When a trial ends early: its evaluations against those of the complete trials, as pure functions.

The evaluations of a trial are told at points that all trials share: ``seed * total_steps + steps``,
with the steps at which evaluations are due. A run is evaluated after whole windows, and the sizes
of windows may be searched. So between the evaluations of a run its return is interpolated.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from pgtoolkit.scripts.comparison.curves import Curve

FULL_TRIALS = 5
"""Complete trials before any is pruned."""

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
