"""The rules of the diagnosis: what is wrong in a run's measurements, and what to do about it.

Each rule has a condition, which is tested whenever its trigger is measured, and words. A finding
begins when the condition held at ``begins`` of the last ``window`` tests, and it ends when it holds
at no more than ``ends`` of them. The rules stand in the order of their weight.
"""

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple, final

from pgtoolkit.diagnostics.bias import is_biased
from pgtoolkit.diagnostics.monitor import MEASUREMENTS
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.formatting import FLAG, format_number
from pgtoolkit.training.history import EVAL_ERROR, History, Series

UPDATES = 20
"""Updates over which numbers of every update are summed up."""
LARGER = 2.0
"""Ratio of variances from which the followed gradient counts as the worse one. It would be
worthwhile to halve the trajectories that are needed; a smaller ratio is within the error of one
measurement with 64 trajectories."""
EXPLODES = 10.0
"""Ratio of variances from which a cause is named: the adjoint's growth, or the policy's gain."""
ADJOINT_GROWTH = 1.15
"""Growth of the adjoint by step from which it is named. It is 1.08 to 1.13 with an untrained
policy, because more rewards follow an early action, and 0.9 to 1.1 in healthy runs; where the
closed loop chatters it is 1.2 to 1.7. Over 32 steps 1.15 makes a factor of 90 in the gradient."""
GAIN_RISE = 5.0
"""Ratio of the policy's gain to that early in the run from which it is named as a cause."""
FIRST_GAINS = 3
"""Measurements that count as early in the run: the gain may explode within ten."""
CARRIES_MOST = 0.5
"""Share of one trajectory in the variance from which the update is that trajectory's."""
MIN_TRAJECTORIES = 16
"""Fewest trajectories for which a share means anything. With 8, one of them has half of the squared
deviations in a quarter of all batches, even if they are Gaussian in one direction; with 16, in
2 %."""
GUARDED = 0.5
"""Share of guarded steps from which the mixed gradient is the score function's, so that a bias of
pathwise does not reach it."""
POINTS_AWAY = 0.5
"""Cosine of the critic's gradient to the exact one below which it counts as pointing away: at 60
degrees a small step climbs half as far as one of the same length along the exact gradient."""
SEEN_Z = 2.0
"""z of the signals of several measurements together, ``sum z / sqrt(n)``, below which there is no
sign of a gradient."""
SURELY_SEEN_Z = 3.0
"""The same z from which another estimator's gradient is surely there, on the same trajectories."""
IMPROVED = 0.3
"""Rise of the return over its first value, as a share of the larger of the two in size, from which
a run counts as having learned. Runs that solve their task exceed 0.8; without learning, chance
evaluations of the pendulum differ by up to 0.25."""
LOST = 0.3
"""Share of the rise that a run may have lost to count as one that has learned."""
DROP = 0.1
"""Share of the best evaluation's size by which the last one may be below it."""
EVIDENT = 3.0
"""Standard errors from which a difference of returns counts."""
DROP_OF_RANGE = 0.001
"""The same as a share of the rise from the first evaluation to the best one. It matters where the
best return is near 0, of which every difference would be a large share."""
AT_BOUNDS = 0.5
"""Share of actions at their bounds from which exploration counts as stuck."""
STD_RATIO, STD_SMALL = 0.1, 0.05
"""Ratio to its start, and size before squashing, below which the standard deviation counts as
collapsed. Healthy runs keep a third of it or more."""
EXPLAINED = 0.05
"""Explained variance below which the value function is worth no more than a constant."""
KL_LARGE = 0.5
"""KL of one update, in nats, that is always too large: that of a Gaussian whose mean moves by its
standard deviation."""
KL_NOTICED, KL_RISE = 0.2, 10.0
"""KL of one update that is too large if it is also so many times the median of the recent ones."""
KL_SPIKES = 3
"""Spikes among the last 50 updates from which they are no exception. Healthy runs have one."""
CLIPPED = 0.8
"""Share of the last 50 updates. While the return rises, healthy runs clip all of their updates, so
that clipping counts only where it is noise that is clipped."""
CLIP_FRACTION = 0.4
"""Share of samples beyond PPO's clip. Healthy runs have 0.02 to 0.31."""


@final
class Words(NamedTuple):
    """A finding in words.

    Attributes:
        number: the measured value that the finding is about.
        short: a few words for the progress line.
        sentence: what is measured, since when, and what to do.
    """

    number: float
    short: str
    sentence: str


@final
class Rule(NamedTuple):
    """A rule of the diagnosis; how it begins and ends is said at the top of this file."""

    kind: str
    trigger: str
    """Tag at which the condition is tested; ``{followed}`` stands for the followed estimator."""
    window: int
    begins: int
    ends: int
    holds: Callable[[History], bool]
    words: Callable[[History, int], Words]
    """Maps the history and the step at which the condition began to words."""
    gradient: bool = False
    """Whether a finding says that the followed gradient is unreliable."""
    at_end: bool = False
    """Whether the last test alone counts at the end of a run, which has no further one."""


def label(name: str) -> str:
    """The name of an estimator before a noun: ``score function`` (gradient)."""
    return CATALOGUE[name].label if name in CATALOGUE else name.replace("_", " ")


def noun(name: str) -> str:
    """The name of an estimator as a noun: ``the score function``, ``pathwise``."""
    return f"the {label(name)}" if name in ("score_function", "critic") else label(name)


def of_followed(history: History, what: str) -> Series | None:
    """The values of ``gradient/{followed}/{what}``."""
    return history.get(f"gradient/{history.followed}/{what}")


def others(history: History) -> list[str]:
    """The estimators that were measured beside the followed one."""
    return [name for name in history.estimators() if name != history.followed]


def ratios(history: History, other: str) -> list[float]:
    """Variance of the followed gradient over that of another one, at the last measurements.

    Where the score function is followed, its ratio to pathwise is ``gradient/variance_ratio``,
    which is of one objective: an agent may follow the score function with a weight of its own.
    """
    matched = matched_ratio(history, other)
    if matched is not None:
        return [x for x in matched.last(MEASUREMENTS) if x > 0]
    followed, beside = (history.get(f"gradient/{x}/variance") for x in (history.followed, other))
    if followed is None or beside is None:
        return []
    at = dict(zip(beside.steps, beside.recent, strict=True))
    pairs = [(x, at.get(s, 0.0)) for s, x in zip(followed.steps, followed.recent, strict=True)]
    return [one / two for one, two in pairs[-MEASUREMENTS:] if two > 0]


def matched_ratio(history: History, other: str) -> Series | None:
    """``gradient/variance_ratio``, if that is the ratio of the followed estimator to this one."""
    if (history.followed, other) != ("score_function", "pathwise"):
        return None
    return history.get("gradient/variance_ratio")


RATIO_GROUPS = {"pathwise": "gradient", "critic": "gradient/critic_on_states"}
"""Where the ratio of the score function's variance to that of each of these is measured."""


def ratio_interval(history: History, other: str) -> tuple[float, float] | None:
    """The 95 % interval of the ratio of two variances at the last measurement.

    Of the larger over the smaller, as the medians of the last measurements have them. None where
    it was not measured, or an end is not known.
    """
    pair = {str(history.followed), other}
    if "score_function" not in pair or not pair & set(RATIO_GROUPS):
        return None
    (beside,) = pair & set(RATIO_GROUPS)
    group = RATIO_GROUPS[beside]
    ends = [history.get(f"{group}/variance_ratio_{end}") for end in ("low", "high")]
    variance = of_followed(history, "variance")
    found = [
        end.recent[-1] for end in ends if end and variance and end.steps[-1] == variance.steps[-1]
    ]
    if len(found) < 2 or min(found) <= 0:
        return None
    low, high = found
    usual = usual_ratio(history, other)
    of_score_function = usual if history.followed == "score_function" else 1 / usual
    return (low, high) if of_score_function >= 1 else (1 / high, 1 / low)


def usual_ratio(history: History, other: str) -> float:
    """The ratio of the median variances at the last measurements; NaN where there is none."""
    followed, beside = (history.get(f"gradient/{x}/variance") for x in (history.followed, other))
    found = ratios(history, other)
    if followed is None or beside is None or not found:
        return math.nan
    if matched_ratio(history, other) is not None:
        return statistics.median(found)
    middle = beside.median(MEASUREMENTS)
    return followed.median(MEASUREMENTS) / middle if middle > 0 else math.nan


def rival(history: History) -> str | None:
    """The other estimator of least variance; not pathwise where that is seen to be biased."""
    found = {name: ratios(history, name) for name in others(history)}
    if biased_now(history):
        found.pop("pathwise", None)
    usable = {name: values for name, values in found.items() if values}
    return max(usable, key=lambda name: statistics.median(usable[name])) if usable else None


def pooled_z(history: History, name: str) -> float | None:
    """``sum z / sqrt(n)`` of the signals of the last measurements; None before there are enough."""
    series = history.get(f"gradient/{name}/signal_z")
    if series is None or len(series.recent) < MEASUREMENTS:
        return None
    return sum(series.last(MEASUREMENTS)) / math.sqrt(MEASUREMENTS)


def snr(history: History, name: str) -> float | None:
    """SNR of one trajectory: mean signal over mean variance of the last measurements."""
    signal, variance = (history.get(f"gradient/{name}/{what}") for what in ("signal", "variance"))
    if signal is None or variance is None:
        return None
    total = sum(variance.last(MEASUREMENTS))
    return sum(signal.last(MEASUREMENTS)) / total if total > 0 else None


def settled(history: History) -> bool:
    """Whether the run has learned and is at its best, so that signal and noise may vanish.

    A run without a return counts as settled: nothing can be said of it.
    """
    returns = [history.get(tag) for tag in ("eval/mean_reward", "rollout/ep_rew_mean")]
    known = [series for series in returns if series is not None]
    return not known or any(map(has_learned, known))


def has_learned(returns: Series) -> bool:
    """Whether the best return is well above the first, and most of the rise has been kept."""
    first, best = returns.early[0], returns.highest
    return has_risen(returns) and best - returns.recent[-1] < LOST * (best - first)


def has_risen(returns: Series) -> bool:
    """Whether the best return is well above the first."""
    first, best = returns.early[0], returns.highest
    return best - first > IMPROVED * max(abs(first), abs(best))


# Variance -----------------------------------------------------------------------------------------


def varies_more(history: History) -> bool:
    """Whether the followed gradient has the larger variance now, and more variance than signal."""
    other = rival(history)
    variance, signal = of_followed(history, "variance"), of_followed(history, "signal")
    if other is None or variance is None or signal is None:
        return False
    return variance.recent[-1] > signal.recent[-1] and ratios(history, other)[-1] > LARGER


def words_variance(history: History, since: int) -> Words:
    name, other = str(history.followed), rival(history) or others(history)[0]
    ratio = usual_ratio(history, other)
    mine, theirs = (variance_text(history, x) for x in (name, other))
    times = format_number(ratio, 2)
    what = "medians" if matched_ratio(history, other) is None else "medians; the ratio matched"
    return Words(
        ratio,
        f"{label(name)} variance {times} times {noun(other)}'s",
        f"the {label(name)} gradient, which is followed, has had the larger variance since step "
        f"{since:,}: {mine} beside {noun(other)}'s {theirs}, {times} times as much ({what})"
        f"{cause(history)}{instead(history)}",
    )


def variance_text(history: History, name: str) -> str:
    """The median variance of an estimator at the last measurements."""
    series = history.get(f"gradient/{name}/variance")
    return "-" if series is None else format_number(series.median(MEASUREMENTS), 2)


def instead(history: History) -> str:
    """What to do where the followed gradient varies too much, after a semicolon."""
    ways = {
        "pathwise": ("follow --estimator mixed", "shorten --n-steps"),
        "score_function": ("train with an agent that follows pathwise (shac, apg)",),
        "mixed": ("shorten --n-steps", "collect more trajectories (--num-envs)"),
    }
    other = ("follow the other one", "collect more samples")
    return advice(history, *ways.get(str(history.followed), other))


def open_to(history: History, *ways: str) -> list[str]:
    """The ways whose flags are all settings of the agent."""
    known = history.settings
    return [
        way
        for way in ways
        if known is None
        or known.issuperset(flag[2:].replace("-", "_") for flag in FLAG.findall(way))
    ]


def advice(history: History, *ways: str) -> str:
    """``"; one way, or another"``, of those that the agent has; empty if it has none."""
    found = open_to(history, *ways)
    return f"; {', or '.join(found)}" if found else ""


def cause(history: History) -> str:
    """``". The closed loop amplifies: ..."`` where the adjoint grows or the gain is high."""
    other = rival(history)
    if other is None or not usual_ratio(history, other) > EXPLODES:
        return ""
    growth, gain = history.get("gradient/adjoint_growth"), history.get("train/policy_gain")
    parts = []
    if gain is not None:
        now, early = gain.median(MEASUREMENTS), statistics.median(gain.early[:FIRST_GAINS])
        if now > GAIN_RISE * early or grows(growth):
            parts.append(
                f"the policy's gain is {format_number(now, 2)} "
                f"({format_number(early, 2)} early in the run)"
            )
    if growth is not None and grows(growth):
        parts.append(f"the adjoint grows {growth.median(MEASUREMENTS):.2f} times a step")
    return f". The closed loop amplifies: {', '.join(parts)}" if parts else ""


def grows(growth: Series | None) -> bool:
    """Whether the adjoint grows from step to step."""
    return growth is not None and growth.median(MEASUREMENTS) > ADJOINT_GROWTH


def carried_by_one(history: History) -> bool:
    """Whether one trajectory carries most of a variance that no other estimator makes up for."""
    share, trajectories = (
        of_followed(history, "largest_share"),
        history.now("gradient/trajectories"),
    )
    if share is None or (trajectories is not None and trajectories < MIN_TRAJECTORIES):
        return False
    other = rival(history)
    worse = other is None or ratios(history, other)[-1] > LARGER
    return share.recent[-1] > CARRIES_MOST and worse


def words_carried_by_one(history: History, since: int) -> Words:
    name, series = str(history.followed), of_followed(history, "largest_share")
    share = series.median(MEASUREMENTS) if series is not None else 0.0
    return Words(
        share,
        f"one trajectory has {share:.0%} of the variance",
        f"one trajectory of {trajectories_text(history)} has carried {share:.0%} of the "
        f"{label(name)} gradient's variance (median) since step {since:,}, so an update follows "
        f"that trajectory{cause(history)}{instead(history)}",
    )


def z_text(z: float) -> str:
    """A z with one decimal, and without the sign of a negative 0."""
    return f"{round(z, 1) + 0.0:.1f}"


def trajectories_text(history: History) -> str:
    """``64``, or ``the batch`` where the number of trajectories is not known."""
    number = history.now("gradient/trajectories")
    return "the batch" if number is None else f"{number:,.0f}"


# Bias and signal ----------------------------------------------------------------------------------


def biased_now(history: History) -> bool:
    """Whether pathwise is seen to be biased at the latest measurement."""
    z, low = history.get("gradient/bias_z"), history.get("gradient/bias_low")
    variance = of_followed(history, "variance")
    if z is None or low is None or variance is None:
        return False
    together = z.steps[-1] == low.steps[-1] == variance.steps[-1]
    return together and is_biased(z.recent[-1], low.recent[-1])


def follows_bias(history: History) -> bool:
    """Whether the bias of pathwise reaches the followed gradient."""
    mixed = follows_mixed_with(history, "pathwise")
    return biased_now(history) and (history.followed == "pathwise" or mixed)


def follows_mixed_with(history: History, path: str) -> bool:
    """Whether a mix of the score function with this estimator is followed, and not guarded.

    Pathwise is mixed wherever it is measured beside the mix, the critic elsewhere.
    """
    mixed_in = "pathwise" if "pathwise" in history.estimators() else "critic"
    guarded = history.now("gradient/mix/guarded") or 0.0
    return history.followed == "mixed" and path == mixed_in and guarded < GUARDED


def critic_is_biased(history: History) -> bool:
    """Whether the critic's gradient is seen to be biased at its latest measurement.

    Against the exact gradient; where that is seen to be biased itself, nothing is known.
    """
    names = ("cosine", "bias_z", "bias_low")
    found = [history.get(f"gradient/critic/{name}") for name in names]
    cosine, z, low = found
    if cosine is None or z is None or low is None:
        return False
    at = cosine.steps[-1]
    exact = [history.get(f"gradient/{name}") for name in ("bias_z", "bias_low")]
    now = [x.recent[-1] for x in exact if x is not None and x.steps[-1] == at]
    exact_is_biased = len(now) == 2 and is_biased(*now)
    together = z.steps[-1] == low.steps[-1] == at
    return together and is_biased(z.recent[-1], low.recent[-1]) and not exact_is_biased


def follows_critic(history: History) -> bool:
    """Whether the critic's gradient is followed, alone or mixed with the score function's."""
    return history.followed == "critic" or follows_mixed_with(history, "critic")


def points_away(history: History) -> bool:
    """Whether the critic's gradient is followed, is biased, and surely points away."""
    high, cosine = (history.get(f"gradient/critic/cosine{end}") for end in ("_high", ""))
    if high is None or cosine is None or not follows_critic(history):
        return False
    away = high.steps[-1] == cosine.steps[-1] and high.recent[-1] < POINTS_AWAY
    return away and critic_is_biased(history)


def words_points_away(history: History, since: int) -> Words:
    cosine, low, high = (
        history.series[f"gradient/critic/cosine{end}"].median(MEASUREMENTS)
        for end in ("", "_low", "_high")
    )
    return Words(
        cosine,
        f"critic's gradient has cosine {cosine:.2f} to the exact one",
        f"the critic's gradient, which is followed, has pointed away from the exact one since step "
        f"{since:,}: the cosine of the two is {cosine:.2f} ({low:.2f} to {high:.2f}, medians); fit "
        "the critic to more data or more often, or take an agent that follows the exact gradient "
        "(shac, apg)",
    )


def words_bias(history: History, since: int) -> Words:
    z, bias, signal = (
        history.get(tag) for tag in ("gradient/bias_z", "gradient/bias", "gradient/pathwise/signal")
    )
    number = z.median(MEASUREMENTS) if z is not None else 0.0
    size = ""
    if bias is not None and signal is not None and signal.median(MEASUREMENTS) > 0:
        share = bias.median(MEASUREMENTS) / signal.median(MEASUREMENTS)
        size = f"; the squared bias is {format_number(share, 2)} times its own squared norm"
    return Words(
        number,
        f"pathwise is biased (z {number:.1f})",
        f"the pathwise gradient has been biased since step {since:,}: its mean differs from the "
        f"score function's (z {number:.1f}{size}). Jumps of reward or dynamics, contacts, and "
        "episodes that end by the action cause it"
        f"{advice(history, 'follow --estimator mixed', 'use reinforce')}",
    )


def only_noise(history: History) -> bool:
    """Whether there is no sign of a gradient in the followed estimate, and there should be one."""
    z = pooled_z(history, str(history.followed))
    if z is None or z >= SEEN_Z:
        return False
    return seen_by(history) is not None or not settled(history)


def seen_by(history: History) -> str | None:
    """An estimator beside the followed one that surely sees a gradient."""
    found = {name: pooled_z(history, name) or 0.0 for name in others(history)}
    seen = {name: z for name, z in found.items() if z > SURELY_SEEN_Z}
    return max(seen, key=lambda name: seen[name]) if seen else None


def words_noise(history: History, since: int) -> Words:
    name = str(history.followed)
    z, seen = pooled_z(history, name) or 0.0, seen_by(history)
    if seen is None:
        rest = f"; {more_trajectories(history)}"
    else:
        found = pooled_z(history, seen) or 0.0
        rest = (
            f", though {noun(seen)} beside it sees one (z {z_text(found)}) on the same "
            f"trajectories{instead(history)}"
        )
    return Words(
        z,
        f"nothing but noise in the gradient (z {z_text(z)})",
        f"since step {since:,} the {label(name)} gradient, which is followed, cannot be told from "
        f"0 (z {z_text(z)} over {MEASUREMENTS} measurements): an update is nothing but noise{rest}",
    )


def more_trajectories(history: History) -> str:
    """How many times more trajectories an update needs for an SNR of 1."""
    ratio, number = snr(history, str(history.followed)), history.now("gradient/trajectories")
    if ratio is None or ratio <= 0 or number is None or ratio * number >= 1:
        return (
            "collect more trajectories (--num-envs); no signal is seen, so it cannot be told how "
            "many"
        )
    times = 1 / (ratio * number)
    return (
        f"collect {format_number(times, 2)} times more trajectories for an SNR of 1 "
        f"({number:,.0f} now; --num-envs {times * number:,.0f})"
    )


# Return -------------------------------------------------------------------------------------------


def below_best(history: History) -> bool:
    """Whether the latest evaluation is far below the best one."""
    returns = history.get("eval/mean_reward")
    if returns is None:
        return False
    best, drop = returns.highest, returns.highest - returns.recent[-1]
    least = max(DROP * abs(best), DROP_OF_RANGE * (best - returns.early[0]))
    return drop > max(least, evident_difference(history))


def evident_difference(history: History) -> float:
    """A difference of two evaluations that is beyond their errors; 0 where none is known."""
    return EVIDENT * math.sqrt(2) * (history.now(EVAL_ERROR) or 0.0)


def relies_on_noise(history: History) -> bool:
    """Whether episodes with the policy's noise return far more than those without it."""
    training, returns = history.now("rollout/ep_rew_mean"), history.get("eval/mean_reward")
    error = history.now(EVAL_ERROR)
    if training is None or returns is None or not error or below_best(history):
        return False
    gain = training - returns.recent[-1]
    return gain > max(DROP * abs(training), evident_difference(history))


def words_relies_on_noise(history: History, since: int) -> Words:
    played = history.series["rollout/ep_rew_mean"].recent[-1]
    evaluated = history.series["eval/mean_reward"].recent[-1]
    both = f"{format_number(played, 4)} with noise, {format_number(evaluated, 4)} without"
    return Words(
        evaluated,
        f"return {both}",
        f"since step {since:,} episodes return far more with the policy's noise than evaluations "
        f"without it: {both}. The policy relies on its noise: evaluate it with stochastic actions, "
        "as it was trained, and use them where it acts",
    )


def smaller_steps(history: History) -> list[str]:
    """The setting that makes the policy's steps smaller, with what to do with it."""
    return open_to(history, "use a smaller --learning-rate", "use a smaller --target-kl")[:1]


def words_below_best(history: History, since: int) -> Words:
    returns = history.series["eval/mean_reward"]
    last, best = format_number(returns.recent[-1], 4), format_number(returns.highest, 4)
    return Words(
        returns.recent[-1],
        f"evaluation {last} after {best}",
        f"the evaluations since step {since:,} are far below the best: {last} after {best} at step "
        f"{returns.highest_step:,}. policy/best.safetensors holds the best policy"
        f"{advice(history, *smaller_steps(history))}",
    )


# Policy -------------------------------------------------------------------------------------------


def above(tag: str, limit: float) -> Callable[[History], bool]:
    """The condition that the latest value of a tag is above a limit."""
    return lambda history: (history.now(tag) or 0.0) > limit


def more_entropy(history: History) -> list[str]:
    """The settings that keep the policy's entropy up, with what to do with them."""
    both, one = "use a larger --ent-coef-relative (or --ent-coef)", "use a larger --ent-coef"
    return open_to(history, both, one)[:1]


def words_saturated(history: History, since: int) -> Words:
    share = history.series["train/saturated_actions"].median(UPDATES)
    return Words(
        share,
        f"{share:.0%} of actions saturated",
        f"{share:.0%} of the actions have been at their bounds since step {since:,}, where tanh is "
        "flat: a pathwise gradient vanishes there and noise explores nothing"
        f"{advice(history, *more_entropy(history))}",
    )


def words_clipped_actions(history: History, since: int) -> Words:
    share = history.series["train/clipped_actions"].median(UPDATES)
    return Words(
        share,
        f"{share:.0%} of actions clipped",
        f"{share:.0%} of the actions have been beyond their bounds since step {since:,} and are "
        "clipped, so noise explores nothing there"
        f"{advice(history, 'use --distribution gaussian', 'use a smaller --log-std-init')}",
    )


def collapsed(history: History) -> bool:
    """Whether the standard deviation is far below its start before the run has learned."""
    std = history.series["train/std"]
    small = std.recent[-1] < min(STD_SMALL, STD_RATIO * std.early[0])
    return small and not settled(history)


def words_collapsed(history: History, since: int) -> Words:
    std = history.series["train/std"]
    now, first = format_number(std.recent[-1], 2), format_number(std.early[0], 2)
    return Words(
        std.recent[-1],
        f"std collapsed to {now}",
        f"the policy's standard deviation has collapsed since step {since:,}: {now} after {first} "
        "at the start, while the return has not risen or has fallen again"
        f"{advice(history, *more_entropy(history))}",
    )


def kl_spike(history: History) -> bool:
    """Whether the policy moved far more in this update than it usually does."""
    kl = history.series["train/approx_kl"]
    noticed = max(KL_NOTICED, KL_RISE * statistics.median(kl.recent))
    return kl.recent[-1] > min(KL_LARGE, noticed)


def words_kl(history: History, since: int) -> Words:
    kl = history.series["train/approx_kl"]
    highest, usual = max(kl.recent), statistics.median(kl.recent)
    return Words(
        highest,
        f"KL up to {format_number(highest, 2)} in an update",
        f"since step {since:,} single updates have moved the policy too far: KL up to "
        f"{format_number(highest, 2)} nats, with a median of {format_number(usual, 2)}"
        f"{advice(history, *smaller_steps(history), 'collect more for each update')}",
    )


# Value function and clipping ----------------------------------------------------------------------


def explains_nothing(history: History) -> bool:
    """Whether the value function is worth no more than a constant before the run has learned."""
    explained = history.series["train/explained_variance"].recent[-1]
    return explained < EXPLAINED and not settled(history)


def words_value(history: History, since: int) -> Words:
    explained = history.series["train/explained_variance"].median(UPDATES)
    fits = ("--vf-learning-rate and --vf-epochs", "--vf-coef and --n-epochs", "--vf-coef")
    more = [f"fit it more ({flags})" for flags in open_to(history, *fits)[:1]]
    scale = "divide the rewards by their scale (--normalize-rewards) if that is off"
    return Words(
        explained,
        f"value function explains nothing ({explained:.2f})",
        f"the value function has explained nothing since step {since:,}: its explained variance "
        f"is {explained:.2f} (median; 1 is perfect), so it is worth no more than a constant"
        f"{advice(history, scale, *more)}",
    )


def clips_noise(history: History) -> bool:
    """Whether this update was clipped, and there is no sign of a gradient in what is clipped."""
    return history.now("train/gradient_clipped") == 1 and only_noise(history)


def words_gradient_clipped(history: History, since: int) -> Words:
    clipped = history.series["train/gradient_clipped"].recent
    share = sum(clipped) / len(clipped)
    return Words(
        share,
        f"{share:.0%} of updates clipped",
        f"{share:.0%} of the last {len(clipped)} updates were clipped to --max-grad-norm (since "
        f"step {since:,}) although there is no sign of a gradient: each is a step of full length "
        "along noise"
        f"{advice(history, 'collect more trajectories (--num-envs)', *smaller_steps(history))}",
    )


def words_clip_fraction(history: History, since: int) -> Words:
    share = history.series["train/clip_fraction"].median(UPDATES)
    return Words(
        share,
        f"ppo clips {share:.0%} of samples",
        f"{share:.0%} of the samples have been beyond PPO's clip since step {since:,}, so the "
        "later passes of an update move little"
        f"{advice(history, *smaller_steps(history), 'use fewer --n-epochs')}",
    )


VARIANCE = "gradient/{followed}/variance"

RULES = (
    Rule("variance", VARIANCE, 5, 4, 2, varies_more, words_variance, gradient=True),
    Rule("bias", VARIANCE, 5, 3, 1, follows_bias, words_bias, gradient=True),
    Rule(
        "critic_bias",
        "gradient/critic/bias_z",
        5,
        3,
        1,
        points_away,
        words_points_away,
        gradient=True,
    ),
    Rule("below_best", "eval/mean_reward", 2, 2, 0, below_best, words_below_best, at_end=True),
    Rule(
        "relies_on_noise",
        "eval/mean_reward",
        2,
        2,
        0,
        relies_on_noise,
        words_relies_on_noise,
        at_end=True,
    ),
    Rule("one_trajectory", VARIANCE, 5, 4, 2, carried_by_one, words_carried_by_one, gradient=True),
    # The condition is over five measurements itself.
    Rule("noise", VARIANCE, 3, 3, 1, only_noise, words_noise, gradient=True),
    Rule("kl", "train/approx_kl", 50, KL_SPIKES, 0, kl_spike, words_kl),
    Rule("std", "train/std", 20, 16, 10, collapsed, words_collapsed),
    Rule(
        "saturated_actions",
        "train/saturated_actions",
        20,
        16,
        10,
        above("train/saturated_actions", AT_BOUNDS),
        words_saturated,
    ),
    Rule(
        "clipped_actions",
        "train/clipped_actions",
        20,
        16,
        10,
        above("train/clipped_actions", AT_BOUNDS),
        words_clipped_actions,
    ),
    Rule("value_function", "train/explained_variance", 20, 16, 10, explains_nothing, words_value),
    Rule(
        "gradient_clipped",
        "train/gradient_clipped",
        50,
        int(50 * CLIPPED),
        25,
        clips_noise,
        words_gradient_clipped,
    ),
    Rule(
        "clip_fraction",
        "train/clip_fraction",
        20,
        16,
        10,
        above("train/clip_fraction", CLIP_FRACTION),
        words_clip_fraction,
    ),
)
"""All rules, the most serious first."""
