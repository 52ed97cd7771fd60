"""The advice of ``pgtoolkit variance``: which estimator to use at which horizon, and how sure."""

import math
from collections.abc import Sequence
from itertools import groupby, pairwise

from pgtoolkit.diagnostics.bias import BIAS_SHARE, BIAS_Z
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.scripts.cli.formatting import format_number, join_names
from pgtoolkit.scripts.variance_study.decision import (
    TIMING_DOUBT,
    Decision,
    by_horizon,
    decide,
    defect,
    is_seen,
    is_zero,
)

MIN_MIXING_GAIN = 1.25
"""The better estimator's variance over mixed's, from which mixed counts as a gain."""

SEEN_Z = 3.0
"""Standard deviations from which a signal counts as detectable, for the number of trajectories."""

SUSPECTED_Z = 2.0
"""Standard deviations from which a bias that is not found is suspected."""

MANY = 1000
"""Factors above this are said to be more than this."""


def verdict(rows: Sequence[Measurement]) -> str:
    """A few sentences on which estimator to use at which horizon, why, and how sure that is.

    At each horizon it is pathwise, the score function, or neither that the trajectories can tell.
    The paired interval of the variance ratio decides, unless pathwise has a defect.

    Args:
        rows: the measurements, score function and pathwise at the same horizons.
    """
    score, pathwise = by_horizon(rows, "score_function"), by_horizon(rows, "pathwise")
    if not score or not pathwise:
        return (
            "No advice: it compares the score function with pathwise, and they were not both "
            "measured (use --estimators score_function pathwise)."
        )
    decisions = decide(rows)
    if not decisions:
        return (
            f"The score function's gradient is not finite at H = {next(iter(score))}, so there is "
            "no reference to compare pathwise with: check the policy's standard deviation "
            "(--log-std-init)."
        )
    alike = groupby(decisions, key=lambda d: (d.choice, d.defect))
    groups = [list(group) for _, group in alike]
    parts = [_sentence(group, decisions) for group in groups]
    parts += [_caution(decisions), _unseen(decisions), _cost(decisions)]
    parts.append(_mixing_advice(rows, decisions))
    return " ".join(part for part in parts if part)


def critic_verdict(rows: Sequence[Measurement]) -> str:
    """What was found of the critic's gradient: its bias, direction and variance; else empty.

    Args:
        rows: the measurements; those of the critic are read.
    """
    critic = list(by_horizon(rows, "critic").values())
    if not critic:
        return ""
    if not_finite := [row for row in critic if not math.isfinite(row.variance)]:
        return f"The critic's gradient is not finite at H = {not_finite[0].horizon}."
    biased = [row for row in critic if defect(row) == "biased"]
    shown = biased or critic
    parts = [_critic_bias(biased, critic), _critic_variance(shown[-1])]
    return " ".join(part for part in parts if part)


def _critic_bias(biased: Sequence[Measurement], critic: Sequence[Measurement]) -> str:
    """Whether the critic's gradient is biased, how far it points away, and from what."""
    if not biased:
        highest = max((row.bias_z for row in critic if math.isfinite(row.bias_z)), default=math.nan)
        if math.isnan(highest):
            return ""
        return f"No bias of the critic's gradient is seen (highest z {format_number(highest, 2)})."
    row = biased[-1]
    reference = CATALOGUE[row.reference].label
    where = join_names(r.horizon for r in biased)
    angle = ""
    if math.isfinite(row.cosine_low):
        low, high = (format_number(end, 2) for end in (row.cosine_low, row.cosine_high))
        angle = f"; the cosine of the two means is {low} to {high} at H = {row.horizon}"
    return (
        f"The critic's gradient is biased at H = {where} (z = {format_number(row.bias_z, 2)} "
        f"against {'the ' * (row.reference == 'score_function')}{reference}{angle})."
    )


def _critic_variance(row: Measurement) -> str:
    """Its variance beside the score function's, where their ratio is known."""
    if not (math.isfinite(row.ratio_low) and math.isfinite(row.ratio_high)):
        return ""
    low, high = (format_number(end, 2) for end in (row.ratio_low, row.ratio_high))
    return f"Its variance is {low} to {high} times the score function's at H = {row.horizon}."


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


def span(group: Sequence[Decision], everything: Sequence[Decision]) -> str:
    """The horizons of a group in words: ``up to H = 16``, ``at H = 32``, ``from H = 64 on``.

    Args:
        group: decisions at successive horizons.
        everything: all decisions, in ascending order of the horizon.
    """
    first, last = group[0].horizon, group[-1].horizon
    if len(everything) == 1:
        return f"at H = {first}"
    if group[0] is everything[0]:
        longest = ", the longest measured" if group[-1] is everything[-1] else ""
        return f"up to H = {last}{longest}"
    if first == last:
        return f"at H = {first}"
    return f"from H = {first} {'on' if group[-1] is everything[-1] else f'to {last}'}"


def _sentence(group: Sequence[Decision], everything: Sequence[Decision]) -> str:
    """What to use at the horizons of a group with one choice and one reason."""
    where, first = span(group, everything), group[0]
    if first.choice == "no gradient":
        return _nothing(group, where)
    if first.choice == "undecided":
        return _undecided(group, where)
    if first.choice == "pathwise":
        careful = ", with caution" if any(d.cautioned for d in group) else ""
        return f"Use pathwise {where}{careful}: its variance is {_ratio_range(group)}."
    if first.defect is None:
        return f"Use the score function {where}: pathwise's variance is {_ratio_range(group)}."
    return f"Use the score function {where}: {_reason(first)}."


def _reason(decision: Decision) -> str:
    """Why pathwise is not to be used from this horizon on, because of a defect."""
    row, at = decision.pathwise, f"at H = {decision.horizon}"
    z = f"z = {format_number(row.bias_z)} {at}"
    if decision.defect == "not finite":
        return f"the pathwise gradient is not finite {at}"
    if decision.defect == "zero":
        return (
            f"the pathwise gradient is exactly zero {at}, but the score function's is not ({z}): "
            "either no reward depends smoothly on an action, or an operation (detach, numpy, a "
            "comparison) cuts torch's graph"
        )
    reason = f"the pathwise gradient is biased ({z}), whatever its variance"
    if row.ended_early > 0:
        reason += (
            f"; {row.ended_early:.0%} of the trajectories terminate early, which is the likely "
            "reason, because pathwise does not see that actions decide when"
        )
    return reason


def _undecided(group: Sequence[Decision], where: str) -> str:
    """That the variances cannot be told apart, and how many more trajectories it takes."""
    count = group[0].pathwise.trajectories
    ends = {decision.horizon: _interval(decision.pathwise) for decision in (group[0], group[-1])}
    return (
        f"No difference that {count:,} trajectories can tell {where}: pathwise's variance is "
        f"{_at_horizons(ends)}."
    )


def _at_horizons(words: dict[int, str]) -> str:
    """Phrases with their horizons, or a single phrase alone."""
    if len(words) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{text} at H = {horizon}" for horizon, text in words.items())


def _interval(row: Measurement) -> str:
    """The interval of the ratio in words, and how many times more trajectories would narrow it."""
    if not (math.isfinite(row.ratio_low) and math.isfinite(row.ratio_high)):
        shown = format_number(row.ratio, 2)
        return f"{shown} times the score function's, but rests on too few trajectories"
    low, high = (format_number(end, 2) for end in (row.ratio_low, row.ratio_high))
    needed = _times_as_many(_needed(row))
    return f"{low} to {high} times the score function's ({needed} would tell)"


def _needed(row: Measurement) -> float:
    """How many times as many trajectories make the interval of the log ratio too short to hold 0.

    An interval shrinks with the square root of their number.
    """
    distance = math.log(row.ratio)
    width = (
        math.log(row.ratio_high / row.ratio)
        if distance < 0
        else math.log(row.ratio / row.ratio_low)
    )
    return (width / distance) ** 2 if distance else math.inf


def _times_as_many(factor: float) -> str:
    """``about 4 times as many``; never less than twice."""
    if not factor <= MANY:
        return f"more than {MANY:,} times as many"
    return f"about {format_number(max(math.ceil(factor), 2), 2)} times as many"


def _nothing(group: Sequence[Decision], where: str) -> str:
    """That no gradient was found at these horizons."""
    if all(is_zero(decision.score) for decision in group):
        return (
            f"Neither estimator has a gradient {where}: all rewards are the same whatever the "
            "actions, up to rounding."
        )
    return (
        f"Neither estimator shows a gradient {where}: pathwise is zero, and the score function's "
        "mean gradient cannot be told from noise. Either no reward depends on the actions, or "
        f"{_to_see(group[-1].score)} are needed."
    )


def _to_see(row: Measurement) -> str:
    """How many times as many trajectories it takes to see a signal of the size that is possible.

    The noise of the signal falls with their number. The signal is the measured one, or, if that is
    not positive, the largest one that its interval holds.
    """
    possible = row.signal if row.signal > 0 else row.signal_high
    noise = row.variance / math.sqrt(row.effective_dimension) * math.sqrt(2) / row.trajectories
    factor = SEEN_Z * noise / possible if possible > 0 else math.inf
    least = "" if row.signal > 0 else "at least "
    return f"{least}{_times_as_many(factor)} trajectories".replace("at least about", "at least")


def _cost(decisions: Sequence[Decision]) -> str:
    """The time of a trajectory by either estimator, and where it reverses the choice."""
    compared = [d for d in decisions if d.choice in ("pathwise", "score function") and not d.defect]
    compared = [d for d in compared if math.isfinite(d.time_ratio) and d.pathwise.variance > 0]
    if not compared:
        return ""
    last = compared[-1]
    text = (
        f"At H = {last.horizon} a trajectory takes {_as_long(last.time_ratio)} by pathwise as by "
        f"the score function; variance times seconds per trajectory is "
        f"{format_number(cost(last.pathwise), 2)} by pathwise and "
        f"{format_number(cost(last.score), 2)} by the score function."
    )
    reversed_at = [d.horizon for d in compared if d.cheaper not in (d.choice, "undecided")]
    if reversed_at:
        other = next(d.cheaper for d in compared if d.horizon == reversed_at[0])
        text += (
            f" That reverses the choice at H = {join_names(reversed_at)}: for the same computing "
            f"time {'the ' * (other != 'pathwise')}{other} has the lower variance."
        )
    return text


def _as_long(factor: float) -> str:
    """``about as long`` or ``3 times as long``."""
    about = 1 / TIMING_DOUBT < factor < TIMING_DOUBT
    return "about as long" if about else f"{format_number(factor, 2)} times as long"


def cost(row: Measurement) -> float:
    """Variance times seconds per trajectory: the variance that one second of work leaves."""
    return row.variance * row.seconds_per_trajectory


def _caution(decisions: Sequence[Decision]) -> str:
    """Where a bias that matters is not excluded."""
    unsure = [decision for decision in decisions if decision.cautioned]
    if not unsure:
        return ""
    row = unsure[-1].pathwise
    bound, advice = "nothing is known of it", "try more --trajectories"
    if math.isfinite(row.bias_high):
        bound = (
            f"its square may be up to {format_number(row.bias_high, 2)}, and the squared norm of "
            f"the pathwise gradient is {format_number(row.signal, 2)}"
        )
        if row.signal > 0:  # without a bias the bound falls as 1/N
            times = _times_as_many(row.bias_high / (BIAS_SHARE * row.signal))
            advice = f"{times} --trajectories would exclude it, if there is none"
        if SUSPECTED_Z < row.bias_z <= BIAS_Z:  # with a bias z grows as N
            times = _times_as_many(BIAS_Z / row.bias_z)
            advice = (
                f"z is {format_number(row.bias_z, 2)}: if that is a bias, {times} would show it"
            )
    return (
        f"Caution: at H = {join_names(d.horizon for d in unsure)} a bias of pathwise that matters, "
        f"with a square of {BIAS_SHARE:.0%} of its signal or more, is not excluded; at H = "
        f"{row.horizon} {bound} ({advice})."
    )


def _unseen(decisions: Sequence[Decision]) -> str:
    """Where neither estimator shows a signal, and how many trajectories it takes."""
    compared = [d for d in decisions if d.choice != "no gradient" and d.defect is None]
    unseen = [d for d in compared if not (is_seen(d.score) or is_seen(d.pathwise))]
    if not unseen:
        return ""
    last = unseen[-1]
    row = min(last.score, last.pathwise, key=lambda r: r.variance)
    return (
        f"At H = {join_names(d.horizon for d in unseen)} no gradient is detectable by "
        f"either: at H = {last.horizon} {_to_see(row)} are needed."
    )


def _mixing_advice(rows: Sequence[Measurement], decisions: Sequence[Decision]) -> str:
    """A sentence on mixed against the better of the two; empty where no horizon compares them."""
    mixed = by_horizon(rows, "mixed")
    if biased := [h for h, row in mixed.items() if defect(row) == "biased"]:
        return f"Mixed is biased as well, at H = {join_names(biased)}."
    gains = {}
    for decision in decisions:
        row = mixed.get(decision.horizon)
        # Where pathwise has a defect, mixed is the score function, or no better than pathwise.
        usable = decision.defect is None and decision.choice != "no gradient"
        if row is not None and usable and defect(row) is None and row.variance > 0:
            better = min(decision.score.variance, decision.pathwise.variance)
            gains[decision.horizon] = better / row.variance
    if not gains:
        return ""
    best = max(gains, key=lambda h: gains[h])
    if gains[best] < MIN_MIXING_GAIN:
        return "Mixed gains little or nothing over the better of the two."
    return (
        "Mixed has a lower variance than the better of the two, by up to "
        f"{format_number(gains[best], 2)} times (at H = {best})."
    )


def _ratio_range(group: Sequence[Decision]) -> str:
    """The ratios at the first and the last horizon of a group, in words.

    For example ``4,200 times lower at H = 4, 2.1 times lower at H = 128``; only the first part, and
    without its horizon, if there is but one.
    """
    return _at_horizons({d.horizon: _lower_or_higher(d.pathwise) for d in (group[0], group[-1])})


def _lower_or_higher(row: Measurement) -> str:
    """The variance ratio in words; in per cent where it would be rounded to 1."""
    if row.variance == 0:
        return "0"
    word, factor = ("lower", 1 / row.ratio) if row.ratio < 1 else ("higher", row.ratio)
    if factor < 1.1:
        return f"{format_number(100 * (factor - 1), 2)} % {word}"
    return f"{format_number(factor, 2)} times {word}"
