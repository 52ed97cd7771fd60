"""Which estimator up to which horizon: what the measurements say, in a sentence or two."""

import math
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import Literal

from pgtoolkit.estimators.cross_fitting import BIAS_Z
from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.scripts.cli.files import listed, short

Objection = Literal["not finite", "zero", "biased", "heavy tail", "variance"]

ByHorizon = dict[int, Measurement]

HEAVY_TAIL = 0.5
"""The share of the squared spread that one trajectory makes up from which a variance counts as not
known: so few trajectories decide that the next batch may show another."""

WORTH_MIXING = 1.25
"""How many times lower mixed's variance must be to be worth its trouble."""


def defect(row: Measurement) -> Objection | None:
    """What is wrong with an estimator's gradient in itself, whatever its variance."""
    if not math.isfinite(row.variance):
        return "not finite"
    if row.variance == 0 and row.signal == 0:
        return "zero"
    # A single z may be skewed, and an interval of 95 % misses 0 now and then: both must say so.
    if row.bias_z > BIAS_Z and row.bias_low > 0:
        return "biased"
    return "heavy tail" if row.largest_share > HEAVY_TAIL else None


def objection(pathwise: Measurement, score_function: Measurement) -> Objection | None:
    """Why not to use pathwise at this horizon; None where it is the better one."""
    found = defect(pathwise)
    # A heavy tail only hides variance: one that is the higher already is reason enough.
    if found in (None, "heavy tail") and pathwise.variance >= score_function.variance:
        return "variance"
    return found


def crossover(horizons: Sequence[int], ratios: Sequence[float]) -> float | None:
    """Where the ratio first rises through 1; linear in log ratio and log horizon between two.

    Args:
        horizons: ascending.
        ratios: pathwise variance over the score function's, at each.

    Returns:
        The horizon; None if it never does.
    """
    for (h, ratio), (next_h, next_ratio) in pairwise(zip(horizons, ratios, strict=True)):
        if 0 < ratio < 1 <= next_ratio < math.inf:
            share = math.log(ratio) / math.log(ratio / next_ratio)
            return float(h * (next_h / h) ** share)
    return None


def by_horizon(rows: Sequence[Measurement], estimator: str) -> ByHorizon:
    """One estimator's measurements, ascending."""
    ascending = sorted(rows, key=lambda row: row.horizon)
    return {row.horizon: row for row in ascending if row.estimator == estimator}


def variance_ratios(rows: Sequence[Measurement]) -> dict[int, float]:
    """Pathwise variance over the score function's, wherever that is a finite number."""
    score, pathwise = by_horizon(rows, "score_function"), by_horizon(rows, "pathwise")
    ratios = {
        h: pathwise[h].variance / score[h].variance
        for h in pathwise
        if h in score and score[h].variance
    }
    return {h: ratio for h, ratio in ratios.items() if math.isfinite(ratio)}


def verdict(rows: Sequence[Measurement]) -> str:
    """Which estimator to use up to which horizon, and why.

    A pathwise gradient that is biased, exactly zero, not finite or decided by a single trajectory
    is not advised, whatever its variance, nor is it at longer horizons.

    Args:
        rows: the measurements, both estimators at the same horizons.
    """
    score, pathwise = by_horizon(rows, "score_function"), by_horizon(rows, "pathwise")
    if not score or not pathwise:
        return (
            "The choice is between score function and pathwise, and they were not both measured "
            "(--estimators score_function pathwise)."
        )
    if not any(defect(row) in (None, "heavy tail") for row in score.values()):
        return _no_reference(score, pathwise)
    against = {h: objection(pathwise[h], score[h]) for h in score}
    good = list(takewhile(lambda h: against[h] is None, against))
    ratios = variance_ratios(rows)
    if len(good) == len(against):
        choice = (
            f"Use pathwise up to H = {good[-1]}, all that was measured: its variance never passes "
            f"the score function's ({_span(ratios)})."
        )
    elif against[first := list(against)[len(good)]] == "variance":
        again = [h for h in against if h > first and against[h] is None]
        choice = _passed(good, again, ratios)
    else:
        choice = _unfit(good, pathwise[first])
    blind = [h for h in good if unchecked(pathwise[h], score[h])]
    caution = ""
    if blind:
        caution = (
            f" At H = {listed(blind)} no bias was seen, but one as large as the gradient would not "
            "have been (more --trajectories may tell)."
        )
    return f"{choice}{caution} {_on_mixing(rows, against)}".rstrip()


def _no_reference(score: ByHorizon, pathwise: ByHorizon) -> str:
    """Where the score function itself is no gradient: nothing to compare pathwise with."""
    first = next(iter(score))
    if defect(score[first]) == "zero" and defect(pathwise[first]) == "zero":
        return (
            "Neither estimator has a gradient: all rewards are the same whatever the actions, as "
            "far as these horizons reach."
        )
    return (
        f"The score function's gradient is {defect(score[first])} at H = {first}, so pathwise has "
        "nothing to be held against: check the policy's standard deviation (--log-std-init)."
    )


def unchecked(pathwise: Measurement, score_function: Measurement) -> bool:
    """Whether a bias as large as the gradient itself would have been missed.

    The squared mean difference has noise of some ``V / N`` of the score function, and the verdict
    asks for ``BIAS_Z`` of it.
    """
    noise = score_function.variance / score_function.trajectories
    return BIAS_Z * noise > pathwise.signal


def _passed(good: list[int], again: list[int], ratios: dict[int, float]) -> str:
    """Where the variance is what decides."""
    exception = f" Pathwise is the better one at H = {listed(again)}, though." if again else ""
    if not good:
        return (
            "Use the score function: its variance is below pathwise's from the shortest horizon on "
            f"({_span(ratios)}).{exception}"
        )
    horizon = crossover(list(ratios), list(ratios.values()))
    return (
        f"Use pathwise up to H = {short(horizon or good[-1], 2)} or so and the score function "
        f"beyond: there pathwise's variance passes the score function's ({_span(ratios)})."
        f"{exception}"
    )


def _unfit(good: list[int], row: Measurement) -> str:
    """Where pathwise has a defect."""
    found, at = defect(row), f"at H = {row.horizon}"
    reason = f"the pathwise gradient is not finite {at}"
    if found == "biased":
        reason = f"pathwise is biased here (z = {short(row.bias_z)} {at}), whatever its variance"
    elif found == "zero":
        reason = (
            f"the pathwise gradient is exactly zero {at}: either no reward depends smoothly on an "
            "action, or torch cannot follow (detach, numpy, a comparison); its variance of 0 is no "
            "merit"
        )
    elif found == "heavy tail":
        reason = (
            f"one trajectory makes up {row.largest_share:.0%} of pathwise's squared spread {at}, "
            "so its variance is not known (more --trajectories may tell)"
        )
    if not good:
        return f"Use the score function: {reason}."
    return f"Use pathwise up to H = {good[-1]} and the score function beyond: {reason}."


def _on_mixing(rows: Sequence[Measurement], against: dict[int, Objection | None]) -> str:
    score, pathwise = by_horizon(rows, "score_function"), by_horizon(rows, "pathwise")
    mixed = by_horizon(rows, "mixed")
    if biased := [h for h, row in mixed.items() if defect(row) == "biased"]:
        return f"Mixed is biased as well, at H = {listed(biased)}."
    gains = {}
    for h, row in mixed.items():
        # Where pathwise has a defect, mixed is the score function, or no better than pathwise.
        if defect(row) is None and against[h] in (None, "variance") and row.variance > 0:
            gains[h] = min(score[h].variance, pathwise[h].variance) / row.variance
    if not gains:
        return ""
    best = max(gains, key=lambda h: gains[h])
    if gains[best] < WORTH_MIXING:
        return "Mixed gains little or nothing on the better of the two."
    return (
        f"Mixed has a lower variance than the better of the two, by up to {short(gains[best], 2)} "
        f"times (at H = {best})."
    )


def _span(ratios: dict[int, float]) -> str:
    """``4,200 times lower at H = 4, 2.1 times higher at H = 128``: the first and the last."""
    parts = []
    for h in dict.fromkeys([*ratios][:1] + [*ratios][-1:]):
        if ratios[h] == 0:
            parts.append(f"0 at H = {h}")
        elif ratios[h] < 1:
            parts.append(f"{short(1 / ratios[h], 2)} times lower at H = {h}")
        else:
            parts.append(f"{short(ratios[h], 2)} times higher at H = {h}")
    return ", ".join(parts) or "which is 0"
