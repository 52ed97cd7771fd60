"""A weight of each trajectory that does not depend on it: fitted on the other half.

The trajectories are split in two folds, even and odd. What is fitted on one fold decides for the
other, so a mix with such weights is exactly as unbiased as what it mixes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pgtoolkit.diagnostics.significance import significance
from pgtoolkit.diagnostics.statistics import MIN_TRAJECTORIES
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.baselines import leave_one_out
from pgtoolkit.shapes import check_same_shape

MIN_MIXED = 2 * MIN_TRAJECTORIES
"""The fewest trajectories that can be mixed: each fold needs statistics of its own."""

BIAS_Z = 5.0
"""The z of the matched difference above which pathwise counts as biased.

There is a verdict at every step of every window. Where pathwise is right, a wrong one costs the
score function's variance, perhaps a thousandfold, so it must be rare: by the mean of a Gaussian, in
folds of 32, 3 of 10000 for f = cos x, 8 for x^2 with its mean as the baseline (2 of 100 without
one; 8 of 100 by mean and sigma together). Where pathwise is blind, it must come: for a jump, 1[x >
0] with its mean as the baseline, by the mean, it does in 99.5 % of folds of 32 and 54 % of 16; by
mean and sigma together in 5 % of folds of 32, 33 % of 64 and 94 % of 128.
"""

WeightRule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The weight on pathwise from the score function's variance, pathwise's, and their covariance."""


def require_mixable(config: Any) -> None:
    """Raises where an agent so configured cannot follow its estimator.

    Args:
        config: an agent's configuration with ``estimator``, ``num_envs`` and ``distribution``.

    Raises:
        RequestError: ``mixed`` with fewer than six trajectories, or without a Gaussian policy.
    """
    if config.estimator == "mixed":
        enough = f"at least {MIN_MIXED} with --estimator mixed"
        config.require("num_envs", config.num_envs >= MIN_MIXED, enough)
        gaussian = config.distribution == "gaussian"
        config.require("distribution", gaussian, "gaussian with --estimator mixed")


def folds(num_trajectories: int) -> tuple[slice, slice]:
    """The two folds: even and odd trajectories."""
    return slice(0, num_trajectories, 2), slice(1, num_trajectories, 2)


def cross_fitted(score: Tensor, pathwise: Tensor, rule: WeightRule) -> Tensor:
    """The :func:`guarded_weight` of ``[..., N, P]`` gradients, from the other fold ``[..., N]``.

    Raises:
        RequestError: fewer than six trajectories.
    """
    check_same_shape(score=score, pathwise=pathwise)
    num = score.shape[-2]
    if num < MIN_MIXED:
        raise RequestError(
            f"a mixed gradient needs at least {MIN_MIXED} trajectories, not {num}: use more "
            "environments (--num-envs)"
        )
    even, odd = folds(num)
    weight = score.new_empty(score.shape[:-1])
    for own, other in ((even, odd), (odd, even)):
        fitted = guarded_weight(score[..., other, :], pathwise[..., other, :], rule)
        weight[..., own] = fitted.unsqueeze(-1)
    return weight


def guarded_weight(score: Tensor, pathwise: Tensor, rule: WeightRule) -> Tensor:
    """The rule's weight ``[...]`` from unbiased moments of ``[..., n, P]`` gradients, or 0.

    It is 0, the score function alone, where the two means differ by more than chance allows:
    pathwise does not see a jump of the objective, and its variance does not show it.
    """
    n = score.shape[-2]
    by_score, by_path = (x - x.mean(-2, keepdim=True) for x in (score, pathwise))
    pairs = ((by_score, by_score), (by_path, by_path), (by_score, by_path))
    score_variance, pathwise_variance, covariance = (
        (x * y).sum((-2, -1)) / (n - 1) for x, y in pairs
    )
    biased = difference_z(score - pathwise) > BIAS_Z
    return torch.where(biased, 0.0, rule(score_variance, pathwise_variance, covariance))


def difference_z(difference: Tensor) -> Tensor:
    """The z ``[...]`` of the squared mean of matched differences ``[..., n, P]``; 0 if all are.

    :attr:`GradientStatistics.significance
    <pgtoolkit.diagnostics.statistics.GradientStatistics.significance>`, for many samples at once.
    """
    n, size = difference.shape[-2:]
    mean = difference.mean(-2, keepdim=True)
    centred = difference - mean
    variance = centred.square().sum((-2, -1)) / (n - 1)
    # The two products have one Frobenius norm: take the smaller.
    product = centred @ centred.mT if n < size else centred.mT @ centred
    excess = product.square().sum((-2, -1)) / (n - 1) ** 2 - variance.square() / (n - 1)
    signal = mean.square().sum((-2, -1)) - variance / n
    return significance(signal, variance, excess * (n - 1) ** 2 / ((n - 2) * (n + 1)), n)


def leave_one_out_by_fold(returns: Tensor, valid: Tensor) -> Tensor:
    """``leave_one_out`` of :mod:`pgtoolkit.estimators.baselines` in each fold ``[T, N]``.

    So the folds stay independent: the mean over all others would carry each trajectory's return
    into the gradients of the other fold, and from there into its own weight.
    """
    baseline = torch.empty_like(returns)
    for fold in folds(returns.shape[1]):
        baseline[:, fold] = leave_one_out(returns[:, fold], valid[:, fold])
    return baseline
