"""Two estimators on the same trajectories: variance ratio, cosine and bias, with 95 % intervals.

All sums are over the pairs of gradients of one trajectory, so what the two estimators have in
common, such as an unusual start state, does not widen the intervals.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Self, final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.intervals import (
    FLOAT64_TINY,
    MIN_CONTRIBUTING,
    Deviations,
    Interval,
    degrees_of_freedom,
    jackknife_variance,
    log_error,
    student_95,
)
from pgtoolkit.diagnostics.statistics import GradientStatistics, gradient_difference

MARKOV = math.log(40)
"""The logarithm of 1 / 0.025: an unbiased estimate of a variance exceeds it by a larger factor in
at most 2.5 % of batches, whatever the law."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class PairStatistics:
    """Statistics of a first and a second estimator of one gradient; scalars in float64."""

    log_ratio: Tensor
    """``log(V_1 / V_2)``, the logarithm of the ratio of the two variances; NaN if one of them is
    0."""
    log_ratio_low: Tensor
    """This and the other ends of 95 % intervals are NaN where nothing is known. One end may be
    known alone: where one trajectory makes up a variance, the true one may be far larger."""
    log_ratio_high: Tensor
    cosine: Tensor
    """Cosine of the angle between the two measured mean gradients."""
    cosine_low: Tensor
    """The interval is that of the angle between the true means, without the noise of the measured
    ones. There is none unless both estimators have a detectable signal."""
    cosine_high: Tensor
    difference: GradientStatistics
    """Of the first gradient less the second. Its signal is the squared bias of the second estimator
    if the first is unbiased, with interval and significance."""

    @classmethod
    def of(
        cls,
        first: Mapping[str, Tensor],
        second: Mapping[str, Tensor],
        statistics: tuple[GradientStatistics, GradientStatistics],
    ) -> Self:
        """Compares gradients ``{parameter name: [N, *shape]}`` of the same N trajectories.

        Args:
            first: gradients by the first estimator.
            second: gradients by the second estimator.
            statistics: of the first and of the second.

        Raises:
            RequestError: fewer than three trajectories.
        """
        log_ratio, ratio = log_variance_ratio(*(s.deviations for s in statistics))
        angle = cosine_interval(first, second, statistics)
        return cls(
            log_ratio,
            *ratio,
            cosine(first, second),
            *angle,
            GradientStatistics.of(gradient_difference(first, second)),
        )


def log_variance_ratio(first: Deviations, second: Deviations) -> tuple[Tensor, Interval]:
    """``log(V_1 / V_2)`` and its interval, by the jackknife over pairs.

    The quantile is Student's t, as for a single variance. The upper end is moved by what the first
    variance may be larger for trajectories that are rarer than those seen
    (:attr:`Deviations.allowances <pgtoolkit.diagnostics.intervals.Deviations.allowances>`), and the
    lower end by what the second one may be. These ends also hold where too few trajectories make up
    a variance for an interval of its own.

    No end is further out than that of two separate bounds: the one variance larger by its own error
    and allowances, the other one 40 times smaller. An unbiased estimate is 40 times too large in at
    most 2.5 % of batches whatever the law (Markov's inequality), so that a large ratio is beyond
    doubt also where one of the two has a heavy tail.

    Returns:
        The logarithm, NaN if a variance is 0, and its interval.
    """
    n = first.num_trajectories
    left_out = first.left_out_logs - second.left_out_logs
    influence = (left_out - left_out.mean()).square()
    contributing = influence.sum().square() / influence.square().sum().clamp_min(FLOAT64_TINY)
    error = jackknife_variance(left_out).sqrt() * student_95(degrees_of_freedom(contributing, n))
    larger_1, larger_2 = (d.allowances[1].log() for d in (first, second))
    above = larger_1 + error.minimum(log_error(first) + MARKOV)
    below = larger_2 + error.minimum(log_error(second) + MARKOV)
    both = (first.variance > 0) & (second.variance > 0)
    value = torch.where(both, (first.variance / second.variance).log(), math.nan)
    # Below two trajectories one is nearly all of the variance, and the true one may be far larger.
    low_known = both & (second.contributing >= MIN_CONTRIBUTING)
    high_known = both & (first.contributing >= MIN_CONTRIBUTING)
    low = torch.where(low_known, value - below, math.nan)
    return value, Interval(low, torch.where(high_known, value + above, math.nan))


def cosine(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor:
    """Cosine of the angle between the mean gradients of two ``{name: [N, *shape]}``, a scalar."""
    a, b = (torch.cat([g[name].double().mean(0).flatten() for name in g]) for g in (first, second))
    return torch.nn.functional.cosine_similarity(a, b, dim=0)


def cosine_interval(
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    statistics: tuple[GradientStatistics, GradientStatistics],
) -> Interval:
    """The interval of the cosine between the two true mean gradients.

    With the directions ``u = m / |m|`` of the two means, ``1 - cos = |u_1 - u_2|^2 / 2``. So
    ``2 - 2 cos`` is the signal of gradients ``u_1 - u_2 + d_i`` whose deviations ``d_i`` are those
    of the directions, to first order ``(c_i - u (u . c_i)) / |m|`` of the first less the same of
    the second, and it has a signal's interval. That also holds where the true means are parallel.
    """
    if not all(float(found.signal_low) > 0 for found in statistics):
        nothing = torch.full_like(statistics[0].signal, math.nan)
        return Interval(nothing, nothing)
    ahead, behind = directions(first), directions(second)
    apart = GradientStatistics.of(gradient_difference(ahead, behind))
    return Interval(
        (1 - apart.signal_high / 2).clamp(-1, 1), (1 - apart.signal_low / 2).clamp(-1, 1)
    )


def directions(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each trajectory's part in the direction of the mean, ``{name: [N, *shape]}`` in float64.

    It is ``u + (g_i - u (u . g_i)) / |m|``; its mean over trajectories is ``u = m / |m|``.
    """
    flat = {name: g.double().reshape(len(g), -1) for name, g in gradients.items()}
    means = {name: g.mean(0) for name, g in flat.items()}
    squared = torch.stack([mean.square().sum() for mean in means.values()]).sum()
    along = torch.stack([g @ means[name] for name, g in flat.items()]).sum(0) / squared
    norm = squared.sqrt()
    return {
        name: ((g + (1 - along).unsqueeze(1) * means[name]) / norm).view_as(gradients[name])
        for name, g in flat.items()
    }
