"""The advice of ``pgtoolkit variance``: which estimator to use up to which horizon, and why."""

import math
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import Literal

from pgtoolkit.estimators.cross_fitting import BIAS_Z
from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.scripts.cli.formatting import format_number, join_names

Objection = Literal["not finite", "zero", "biased", "heavy tail", "variance"]
"""A reason not to use an estimator; "variance" means that the score function's is lower."""

ByHorizon = dict[int, Measurement]

HEAVY_TAIL_SHARE = 0.5
"""Share of the sum of squared deviations that comes from one trajectory, above which the variance
counts as unknown: it rests on so few trajectories that the next batch may give another."""

MIN_MIXING_GAIN = 1.25
"""The better estimator's variance over mixed's, from which mixed counts as a gain."""


def verdict(rows: Sequence[Measurement]) -> str:
    """A few sentences on which estimator to use up to which horizon, and why.

    Pathwise is not recommended from the first horizon on at which its gradient is biased, exactly
    zero, not finite, dominated by a single trajectory, or of higher variance than the score
    function's.

    Args:
        rows: the measurements, score function and pathwise at the same horizons.
    """
    score, pathwise = by_horizon(rows, "score_function"), by_horizon(rows, "pathwise")
    if not score or not pathwise:
        return (
            "No advice: it compares the score function with pathwise, and they were not both "
            "measured (use --estimators score_function pathwise)."
        )
    if not any(defect(row) in (None, "heavy tail") for row in score.values()):
        return _no_reference(score, pathwise)
    objections = {h: objection(pathwise[h], score[h]) for h in score}
    good = list(takewhile(lambda h: objections[h] is None, objections))
    ratios = variance_ratios(rows)
    if len(good) == len(objections):
        choice = (
            f"Use pathwise up to H = {good[-1]}, the longest measured: its variance is below the "
            f"score function's at every horizon ({_ratio_range(ratios)})."
        )
    elif objections[first := list(objections)[len(good)]] == "variance":
        better_again = [h for h in objections if h > first and objections[h] is None]
        choice = _choice_by_variance(good, better_again, ratios)
    else:
        choice = _choice_by_defect(good, pathwise[first])
    unchecked = [h for h in good if bias_is_undetectable(pathwise[h], score[h])]
    caution = ""
    if unchecked:
        caution = (
            f" At H = {join_names(unchecked)} no bias was detected, but even a bias as large as "
            "the gradient itself would not have been (try more --trajectories)."
        )
    return f"{choice}{caution} {_mixing_advice(rows, objections)}".rstrip()


def defect(row: Measurement) -> Objection | None:
    """The fault of an estimator's gradient, other than a high variance; None if it has none.

    A gradient counts as biased if the z of its matched difference from the score function is above
    ``BIAS_Z`` (5) and the 95 % interval of the squared bias is above 0. Both are required: z is
    skewed and exceeds 5 by chance now and then, and the interval misses 0 in some cases, too.
    """
    if not math.isfinite(row.variance):
        return "not finite"
    if row.variance == 0 and row.signal == 0:
        return "zero"
    if row.bias_z > BIAS_Z and row.bias_low > 0:
        return "biased"
    return "heavy tail" if row.largest_share > HEAVY_TAIL_SHARE else None


def objection(pathwise: Measurement, score_function: Measurement) -> Objection | None:
    """The reason not to use pathwise at this horizon; None if it is the better estimator."""
    found = defect(pathwise)
    # A heavy tail means that the variance is underestimated, so one that is already higher decides.
    if found in (None, "heavy tail") and pathwise.variance >= score_function.variance:
        return "variance"
    return found


def bias_is_undetectable(pathwise: Measurement, score_function: Measurement) -> bool:
    """Whether a bias as large as the pathwise gradient itself would have been missed.

    The squared norm of the mean difference has a standard error of about ``V / N``, with ``V`` the
    score function's variance and ``N`` the number of trajectories. A bias is reported from
    ``BIAS_Z`` standard errors on.
    """
    noise = score_function.variance / score_function.trajectories
    return BIAS_Z * noise > pathwise.signal


def by_horizon(rows: Sequence[Measurement], estimator: str) -> ByHorizon:
    """Horizon to measurement of one estimator, in ascending order."""
    ascending = sorted(rows, key=lambda row: row.horizon)
    return {row.horizon: row for row in ascending if row.estimator == estimator}


def variance_ratios(rows: Sequence[Measurement]) -> dict[int, float]:
    """Horizon to pathwise variance over the score function's, where that is a finite number."""
    score, pathwise = by_horizon(rows, "score_function"), by_horizon(rows, "pathwise")
    ratios = {
        h: pathwise[h].variance / score[h].variance
        for h in pathwise
        if h in score and score[h].variance
    }
    return {h: ratio for h, ratio in ratios.items() if math.isfinite(ratio)}


def crossover(horizons: Sequence[int], ratios: Sequence[float]) -> float | None:
    """The horizon at which the variance ratio first rises above 1.

    Between two horizons the logarithm of the ratio is interpolated linearly in the logarithm of the
    horizon.

    Args:
        horizons: ascending.
        ratios: pathwise variance over the score function's at each horizon.

    Returns:
        The horizon; None if the ratio never rises through 1.
    """
    for (h, ratio), (next_h, next_ratio) in pairwise(zip(horizons, ratios, strict=True)):
        if 0 < ratio < 1 <= next_ratio < math.inf:
            share = math.log(ratio) / math.log(ratio / next_ratio)
            return float(h * (next_h / h) ** share)
    return None


def _no_reference(score: ByHorizon, pathwise: ByHorizon) -> str:
    """The verdict where the score function's gradient is unusable, so no bias can be measured."""
    first = next(iter(score))
    if defect(score[first]) == "zero" and defect(pathwise[first]) == "zero":
        return (
            "Neither estimator has a gradient: within these horizons all rewards are the same "
            "whatever the actions."
        )
    return (
        f"The score function's gradient is {defect(score[first])} at H = {first}, so there is no "
        "reference to compare pathwise with: check the policy's standard deviation "
        "(--log-std-init)."
    )


def _choice_by_variance(good: list[int], better_again: list[int], ratios: dict[int, float]) -> str:
    """The choice where pathwise is given up because its variance exceeds the score function's.

    Args:
        good: horizons at which pathwise is the better one, before its variance is higher.
        better_again: longer horizons at which it is the better one again.
        ratios: ``{horizon: variance ratio}``, a result of :func:`variance_ratios`.
    """
    exception = ""
    if better_again:
        exception = f" At H = {join_names(better_again)}, however, pathwise is the better one."
    if not good:
        return (
            "Use the score function: from the shortest horizon on, pathwise's variance is not "
            f"below the score function's ({_ratio_range(ratios)}).{exception}"
        )
    horizon = crossover(list(ratios), list(ratios.values()))
    return (
        f"Use pathwise up to about H = {format_number(horizon or good[-1], 2)} and the score "
        f"function beyond: there pathwise's variance exceeds the score function's "
        f"({_ratio_range(ratios)}).{exception}"
    )


def _choice_by_defect(good: list[int], row: Measurement) -> str:
    """The choice where pathwise is given up because its gradient has a defect.

    Args:
        good: horizons at which pathwise is the better one.
        row: pathwise at the first horizon with a defect.
    """
    found, at = defect(row), f"at H = {row.horizon}"
    reason = f"the pathwise gradient is not finite {at}"
    if found == "biased":
        reason = (
            f"the pathwise gradient is biased here (z = {format_number(row.bias_z)} {at}), "
            "whatever its variance"
        )
    elif found == "zero":
        reason = (
            f"the pathwise gradient is exactly zero {at}, so its variance of 0 is no advantage: "
            "either no reward depends smoothly on an action, or an operation (detach, numpy, a "
            "comparison) cuts torch's graph"
        )
    elif found == "heavy tail":
        reason = (
            f"one trajectory contributes {row.largest_share:.0%} of the squared deviations of "
            f"pathwise {at}, so its variance is not reliable (try more --trajectories)"
        )
    if not good:
        return f"Use the score function: {reason}."
    return f"Use pathwise up to H = {good[-1]} and the score function beyond: {reason}."


def _mixing_advice(rows: Sequence[Measurement], objections: dict[int, Objection | None]) -> str:
    """A sentence on mixed against the better of the two; empty where no horizon compares them."""
    score, pathwise = by_horizon(rows, "score_function"), by_horizon(rows, "pathwise")
    mixed = by_horizon(rows, "mixed")
    if biased := [h for h, row in mixed.items() if defect(row) == "biased"]:
        return f"Mixed is biased as well, at H = {join_names(biased)}."
    gains = {}
    for h, row in mixed.items():
        # Where pathwise has a defect, mixed is the score function, or no better than pathwise.
        if defect(row) is None and objections[h] in (None, "variance") and row.variance > 0:
            gains[h] = min(score[h].variance, pathwise[h].variance) / row.variance
    if not gains:
        return ""
    best = max(gains, key=lambda h: gains[h])
    if gains[best] < MIN_MIXING_GAIN:
        return "Mixed gains little or nothing over the better of the two."
    return (
        "Mixed has a lower variance than the better of the two, by up to "
        f"{format_number(gains[best], 2)} times (at H = {best})."
    )


def _ratio_range(ratios: dict[int, float]) -> str:
    """The ratios at the first and the last horizon, in words.

    For example ``4,200 times lower at H = 4, 2.1 times higher at H = 128``.
    """
    parts = []
    for h in dict.fromkeys([*ratios][:1] + [*ratios][-1:]):
        if ratios[h] == 0:
            parts.append(f"0 at H = {h}")
        elif ratios[h] < 1:
            parts.append(f"{format_number(1 / ratios[h], 2)} times lower at H = {h}")
        else:
            parts.append(f"{format_number(ratios[h], 2)} times higher at H = {h}")
    return ", ".join(parts) or "the score function's is 0"
