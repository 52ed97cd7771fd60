"""What the measurements at one horizon decide between pathwise and the score function."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, final

from pgtoolkit.diagnostics.bias import bias_may_matter, is_biased
from pgtoolkit.estimators.horizon_study import Measurement

Defect = Literal["not finite", "zero", "biased", "heavy tail"]
"""A fault of an estimator's gradient, other than a high variance."""

Choice = Literal["pathwise", "score function", "undecided", "no gradient"]
"""The better estimator at one horizon; undecided where N trajectories cannot tell."""

ByHorizon = dict[int, Measurement]

HEAVY_TAIL_SHARE = 0.5
"""Share of the sum of squared deviations that comes from one trajectory, above which the variance
counts as unknown: it rests on so few trajectories that the next batch may give another."""

TIMING_DOUBT = 1.5
"""Factor by which two measured times may be off in comparison; costs that differ by less are taken
to be equal."""


@final
@dataclasses.dataclass(frozen=True)
class Decision:
    """The choice at one horizon."""

    score: Measurement
    pathwise: Measurement
    choice: Choice
    defect: Defect | None
    """The defect of pathwise that decides, at this horizon or at a shorter one; None if the
    variances decide."""

    @property
    def horizon(self) -> int:
        """``H`` in steps."""
        return self.pathwise.horizon

    @property
    def cautioned(self) -> bool:
        """Whether pathwise may be in use although a bias that matters is not excluded."""
        high, signal = self.pathwise.bias_high, self.pathwise.signal
        return self.choice in ("pathwise", "undecided") and bias_may_matter(high, signal)

    @property
    def time_ratio(self) -> float:
        """Seconds for one trajectory by pathwise, over those by the score function."""
        return self.pathwise.seconds_per_trajectory / self.score.seconds_per_trajectory

    @property
    def cheaper(self) -> Choice:
        """The estimator with the lower variance at the same computing time."""
        low, high = self.pathwise.ratio_low, self.pathwise.ratio_high
        if self.pathwise.variance == 0 or high * self.time_ratio * TIMING_DOUBT < 1:
            return "pathwise"
        return "score function" if low * self.time_ratio > TIMING_DOUBT else "undecided"


def decide(rows: Sequence[Measurement]) -> list[Decision]:
    """The decisions in ascending order of the horizon, where both estimators were measured.

    Where pathwise is biased or not finite at one horizon, it is not chosen at a longer one either:
    the longer trajectories contain the shorter ones, and more noise hides the bias. Horizons at
    which the score function is not finite are left out, because nothing can be compared with it.
    """
    score, pathwise = by_horizon(rows, "score_function"), by_horizon(rows, "pathwise")
    found: list[Decision] = []
    before: Defect | None = None
    for horizon in score:
        if horizon in pathwise and math.isfinite(score[horizon].variance):
            found.append(_decide(score[horizon], pathwise[horizon], before))
            before = found[-1].defect
    return found


def _decide(score: Measurement, pathwise: Measurement, before: Defect | None) -> Decision:
    """The decision at one horizon.

    Args:
        score: the score function's measurement.
        pathwise: pathwise's at the same horizon.
        before: the defect that decides at the next shorter horizon.
    """
    own = defect(pathwise)
    if before is not None or own in ("not finite", "biased"):
        return Decision(score, pathwise, "score function", before or own)
    if is_zero(pathwise):
        if is_biased(pathwise.bias_z, pathwise.bias_low):
            return Decision(score, pathwise, "score function", "zero")
        return Decision(score, pathwise, "no gradient", None)
    return Decision(score, pathwise, by_variance(pathwise), None)


def by_variance(pathwise: Measurement) -> Choice:
    """The estimator of lower variance, if the interval of their ratio does not hold 1."""
    if pathwise.variance == 0 or pathwise.ratio_high < 1:
        return "pathwise"
    return "score function" if pathwise.ratio_low > 1 else "undecided"


def defect(row: Measurement) -> Defect | None:
    """The fault of an estimator's gradient, other than a high variance; None if it has none."""
    if not math.isfinite(row.variance):
        return "not finite"
    if is_zero(row):
        return "zero"
    if is_biased(row.bias_z, row.bias_low):
        return "biased"
    return "heavy tail" if row.largest_share > HEAVY_TAIL_SHARE else None


def is_zero(row: Measurement) -> bool:
    """Whether a gradient is 0, or no more than the rounding of the returns adds up to.

    A gradient that is as small and yet has a signal is not rounding.
    """
    if row.variance == 0 and row.signal == 0:
        return True
    return not row.signal_low > 0 and row.variance + abs(row.signal) <= row.rounding


def is_seen(row: Measurement) -> bool:
    """Whether the 95 % interval of the signal is above 0."""
    return row.signal_low > 0


def by_horizon(rows: Sequence[Measurement], estimator: str) -> ByHorizon:
    """Horizon to measurement of one estimator, in ascending order."""
    ascending = sorted(rows, key=lambda row: row.horizon)
    return {row.horizon: row for row in ascending if row.estimator == estimator}
