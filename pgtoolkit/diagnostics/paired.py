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
    signal_interval,
    student_95,
)
from pgtoolkit.diagnostics.outer_products import (
    OuterProducts,
    SampleGradient,
    num_parameters,
    num_samples,
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
        first: Mapping[str, SampleGradient],
        second: Mapping[str, SampleGradient],
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
        difference = GradientStatistics.of(gradient_difference(first, second))
        means = statistics[0].mean, statistics[1].mean
        angle = cosine_interval((first, second), means, (*statistics, difference))
        return cls(log_ratio, *ratio, cosine(*means), *angle, difference)


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


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the angle between two mean gradients ``[P]``, a scalar."""
    return torch.nn.functional.cosine_similarity(first, second, dim=0)


def cosine_interval(
    gradients: tuple[Mapping[str, SampleGradient], Mapping[str, SampleGradient]],
    means: tuple[Tensor, Tensor],
    statistics: tuple[GradientStatistics, GradientStatistics, GradientStatistics],
) -> Interval:
    """The interval of the cosine between the two true mean gradients.

    With the directions ``u = m / |m|`` of the two means, ``1 - cos = |u_1 - u_2|^2 / 2``. So
    ``2 - 2 cos`` is the signal of gradients with the mean ``u_1 - u_2`` and the deviations ``d_i =
    P_1 c_1i / |m_1| - P_2 c_2i / |m_2|``, where ``P = 1 - u u^T`` because a deviation along the
    mean does not turn it, and it has a signal's interval. That also holds where the true means are
    parallel.

    Args:
        gradients: of both estimators, ``{name: [N, *shape]}``.
        means: their mean gradients ``[P]``.
        statistics: of the first, of the second, and of their difference.
    """
    if not all(float(found.signal_low) > 0 for found in statistics[:2]):
        nothing = torch.full_like(statistics[0].signal, math.nan)
        return Interval(nothing, nothing)
    norms = means[0].norm(), means[1].norm()
    directions = torch.stack([m / norm for m, norm in zip(means, norms, strict=True)], 1)
    parallel = directions[:, 0] @ directions[:, 1]
    squares, along = _turning(gradients, directions, norms, statistics)
    roots = [
        found.squared_covariance.clamp_min(0).sqrt().sqrt() / norm
        for found, norm in zip(statistics[:2], norms, strict=True)
    ]
    # The trace of the squared covariance of d is at most the fourth power of the sum of the roots.
    deviations = Deviations.of(squares, along, (roots[0] + roots[1]).pow(4))
    low, high = signal_interval(deviations, 2 - 2 * parallel)
    return Interval((1 - high / 2).clamp(-1, 1), (1 - low / 2).clamp(-1, 1))


def _turning(
    gradients: tuple[Mapping[str, SampleGradient], Mapping[str, SampleGradient]],
    directions: Tensor,
    norms: tuple[Tensor, Tensor],
    statistics: tuple[GradientStatistics, GradientStatistics, GradientStatistics],
) -> tuple[Tensor, Tensor]:
    """``|d_i|^2`` and ``d_i . (u_1 - u_2)``, both ``[N]``, of :func:`cosine_interval`.

    They follow from the squares of the deviations, of their difference, and from their products
    with the two directions ``[P, 2]``.
    """
    first, second, difference = (s.deviations.shares * s.deviations.variance for s in statistics)
    scale = statistics[0].num_trajectories - 1
    first, second, difference = first * scale, second * scale, difference * scale
    product = (first + second - difference) / 2
    (a, across_a), (across_b, b) = (_products(g, directions).unbind(1) for g in gradients)
    parallel = directions[:, 0] @ directions[:, 1]
    inner = product - b * across_a - a * across_b + a * b * parallel
    squares = (first - a.square()) / norms[0] ** 2 + (second - b.square()) / norms[1] ** 2
    squares = squares - 2 * inner / (norms[0] * norms[1])
    along = (a * parallel - across_a) / norms[0] + (b * parallel - across_b) / norms[1]
    return squares.clamp_min(0), along


def _products(gradients: Mapping[str, SampleGradient], directions: Tensor) -> Tensor:
    """``c_i . u`` ``[N, K]`` in float64, for directions ``[P, K]``."""
    size = num_samples(next(iter(gradients.values())))
    total = directions.new_zeros(size, directions.shape[1])
    sizes = [num_parameters(g) for g in gradients.values()]
    for g, part in zip(gradients.values(), torch.split(directions, sizes), strict=True):
        if isinstance(g, OuterProducts):
            shape = g.delta.shape[1], g.inputs.shape[1]
            along = [g.double().along(u.view(shape)) for u in part.unbind(1)]
            total += torch.stack(along, 1)
        else:
            total += (g.reshape(size, -1) @ part.to(g)).double()
    return total - total.mean(0)
