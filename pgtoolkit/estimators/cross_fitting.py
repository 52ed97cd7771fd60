"""Cross-fitted weights: each trajectory's weight is fitted on trajectories other than itself.

The trajectories are split into two folds, even and odd. The weight for one fold is fitted on the
other, so it does not depend on the gradients that it weighs, and the mix is exactly as unbiased as
the two estimators that it mixes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pgtoolkit.diagnostics.moments import unbiased_squared_covariance
from pgtoolkit.diagnostics.significance import significance
from pgtoolkit.diagnostics.statistics import MIN_TRAJECTORIES
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.baselines import leave_one_out
from pgtoolkit.shapes import check_same_shape

MIN_MIXED = 2 * MIN_TRAJECTORIES
"""Fewest trajectories that can be mixed, because statistics are computed for each of two folds."""

BIAS_Z = 5.0
"""The z of the matched difference above which pathwise counts as biased.

The test is made at every step of every window. A false rejection costs the score function's
variance, which may be a thousand times larger, so it must be rare. For the derivative by the mean
of a Gaussian, in folds of 32 trajectories, 3 of 10000 are rejected for f = cos x and 8 of 10000 for
f = x^2 with its mean as the baseline (2 % without one; 8 % for mean and sigma together).

A biased pathwise gradient must be rejected. For the jump f = 1[x > 0] with its mean as the
baseline, where pathwise is 0, the derivative by the mean is rejected in 99.5 % of folds of 32 and
54 % of folds of 16; that by mean and sigma together in 5 % of folds of 32, 33 % of 64 and 94 % of
128.
"""

WeightRule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps the variances of the score function and of pathwise and their covariance to the weight on
pathwise, all of one shape."""


def require_mixable(config: Any) -> None:
    """Raises unless the settings allow ``mixed``, if that is the estimator.

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
    """The weight on pathwise of each trajectory ``[..., N]``, fitted on the other fold.

    Args:
        score: gradients by the score function ``[..., N, P]``.
        pathwise: gradients by pathwise on the same trajectories, of the same shape.
        rule: the weight from variances and covariance; guarded by :func:`guarded_weight`.

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
    """The rule's weight on pathwise ``[...]`` for gradients ``[..., n, P]``, or 0.

    It is 0, which leaves the score function alone, if the means of the two estimates differ
    significantly. A jump of the objective biases pathwise without increasing its variance, so the
    rule alone would prefer pathwise there.
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
    """The z ``[...]`` of the squared mean of differences ``[..., n, P]``; 0 if all are 0.

    It is :attr:`GradientStatistics.significance
    <pgtoolkit.diagnostics.statistics.GradientStatistics.significance>` for a batch of samples.
    """
    n, size = difference.shape[-2:]
    mean = difference.mean(-2, keepdim=True)
    centred = difference - mean
    variance = centred.square().sum((-2, -1)) / (n - 1)
    # Both products have the same Frobenius norm; the smaller one is cheaper.
    product = centred @ centred.mT if n < size else centred.mT @ centred
    squared_covariance = unbiased_squared_covariance(product.square().sum((-2, -1)), variance, n)
    signal = mean.square().sum((-2, -1)) - variance / n
    return significance(signal, variance, squared_covariance, n)


def leave_one_out_by_fold(returns: Tensor, valid: Tensor) -> Tensor:
    """:func:`leave_one_out <pgtoolkit.estimators.baselines.leave_one_out>` in each fold ``[T, N]``.

    It keeps the folds independent. The mean over all other trajectories would carry a trajectory's
    return into the gradients of the other fold, and from there into its own weight.

    Args:
        returns: ``[T, N]``.
        valid: ``[T, N]`` bool, the steps that count.
    """
    baseline = torch.empty_like(returns)
    for fold in folds(returns.shape[1]):
        baseline[:, fold] = leave_one_out(returns[:, fold], valid[:, fold])
    return baseline
