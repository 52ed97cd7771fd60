"""Cross-fitted weights: each trajectory's weight is fitted on trajectories other than itself.

The trajectories are dealt into folds. The weight for one fold is fitted on all others, so it does
not depend on the gradients that it weighs, and the mix is exactly as unbiased as the two estimators
that it mixes.

A variance that is estimated from few trajectories with a heavy tail is more often too small than
too large, because the rare large gradient is most likely missing. The score function has the
heavier tail: it multiplies a return by a score. A fold without its large gradients would give it a
large weight, and with this weight the large gradients of another fold would enter. Its variance is
therefore raised by :func:`tail_factor` before a weight is computed.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pgtoolkit.diagnostics.bias import BIAS_Z
from pgtoolkit.diagnostics.moments import unbiased_squared_covariance
from pgtoolkit.diagnostics.significance import significance
from pgtoolkit.diagnostics.statistics import MIN_TRAJECTORIES
from pgtoolkit.errors import SettingError
from pgtoolkit.estimators.baselines import leave_one_out
from pgtoolkit.estimators.catalogue import EstimatorName
from pgtoolkit.shapes import check_same_shape

MIN_MIXED = 2 * MIN_TRAJECTORIES
"""Fewest trajectories that can be mixed, because statistics are computed for each of two folds."""

MIN_FITTED = 56
"""Trajectories that a weight is fitted on, at least, where there are enough. From about 50 on the
mix is no worse than the better estimator, also with a heavy tail."""

MIN_FOLD = 8
"""Fewest trajectories of a fold, unless there would be one fold only. A fold shares a baseline
(:func:`leave_one_out_by_fold`), which is noisy in a small one."""

HEAVY_TAIL = 2.0
"""Strength of :func:`tail_factor`. Chosen on thirteen functions of a Gaussian variable, for the
derivative by mean and sigma with 16, 64 and 256 trajectories: with 64 and more the mix has at most
1.1 times the variance of the better estimator on each of them (``docs/estimators.md``)."""

GATHERED_ENTRIES = 4_000_000
"""Entries of the gradients that are copied at once, to fit several folds in one batch."""

WeightRule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps the variances of the score function and of pathwise and their covariance to the weight on
pathwise, all of one shape."""


def followed_estimator(config: Any) -> EstimatorName:
    """The estimator that a pathwise agent follows: the one that is set, or what ``auto`` means.

    ``auto`` is ``mixed`` wherever that is possible: with a Gaussian policy and at least six
    environments. Otherwise it is ``pathwise``. With 64 trajectories the mix has at most about the
    variance of the better of the two, with fewer up to twice as much; and where the variance of
    pathwise explodes or pathwise is biased, the score function remains.

    Args:
        config: an agent's configuration with ``estimator``, ``num_envs`` and ``distribution``.
    """
    if config.estimator != "auto":
        estimator: EstimatorName = config.estimator
        return estimator
    mixable = config.num_envs >= MIN_MIXED and config.distribution == "gaussian"
    return "mixed" if mixable else "pathwise"


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


def folds(num_trajectories: int) -> list[slice]:
    """The folds: trajectory ``i`` is in fold ``i mod K``.

    ``K`` is the fewest that leave ``MIN_FITTED`` trajectories outside each fold, but at least 2,
    and at most so many that a fold has ``MIN_FOLD``.
    """
    spare = max(num_trajectories - MIN_FITTED, 1)
    most = max(num_trajectories // MIN_FOLD, 2)
    count = min(max(math.ceil(num_trajectories / spare), 2), most)
    return [slice(start, num_trajectories, count) for start in range(count)]


def cross_fitted(score: Tensor, pathwise: Tensor, rule: WeightRule) -> Tensor:
    """The weight on pathwise of each trajectory ``[..., N]``, fitted on the other folds.

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
        raise SettingError(
            f"a mixed gradient needs at least {MIN_MIXED} trajectories, not {num}: use more "
            "environments (--num-envs)"
        )
    own = folds(num)
    at_once = max(GATHERED_ENTRIES // score.numel(), 1)
    fitted = [
        guarded_weight(score[..., rows, :], pathwise[..., rows, :], rule)
        for others in _others(len(own), num, score.device)
        for rows in torch.split(others, at_once)
    ]
    by_fold = torch.cat(fitted, -1)
    weight = score.new_empty(score.shape[:-1])
    for number, fold in enumerate(own):
        weight[..., fold] = by_fold[..., number, None]
    return weight


def _others(num_folds: int, num: int, device: torch.device) -> list[Tensor]:
    """Indices of the trajectories outside each fold, in the order of the folds.

    The first folds may have one trajectory more than the last ones. There is one matrix ``[K, n]``
    for the former and one for the latter.
    """
    rows = torch.arange(num, device=device)
    outside = [rows[rows % num_folds != fold] for fold in range(num_folds)]
    larger = num % num_folds
    return [torch.stack(group) for group in (outside[:larger], outside[larger:]) if group]


def guarded_weight(score: Tensor, pathwise: Tensor, rule: WeightRule) -> Tensor:
    """The rule's weight on pathwise ``[...]`` for gradients ``[..., n, P]``, or 0.

    The rule gets the score function's variance times :func:`tail_factor` ``g``, and the covariance
    times ``sqrt(g)``, so that their correlation is as measured.

    The weight is 0, which leaves the score function alone, if the means of the two estimates differ
    significantly: :func:`cautious_z` above ``BIAS_Z``. A jump of the objective biases pathwise
    without increasing its variance, so the rule alone would prefer pathwise there.

    The test is made at every step of every window, and a false rejection costs the score function's
    variance, which may be a thousand times larger. For the derivative by the mean of a Gaussian and
    56 trajectories, fewer than 1 of 1000 are rejected for ``cos x``, and for ``x^2`` with its mean
    as the baseline. For the jump ``1[x > 0]`` with its mean as the baseline, where pathwise is 0,
    58 % of samples of 32 are rejected and 99.7 % of 56; by mean and sigma together 2 % of samples
    of 56, 45 % of 128 and 97 % of 224.
    """
    n = score.shape[-2]
    by_score, by_path = (x - x.mean(-2, keepdim=True) for x in (score, pathwise))
    squares = by_score.square().sum(-1)
    factor = tail_factor(squares)
    score_variance = squares.sum(-1) / (n - 1)
    pathwise_variance = by_path.square().sum((-2, -1)) / (n - 1)
    covariance = (by_score * by_path).sum((-2, -1)) / (n - 1)
    biased = cautious_z(score - pathwise) > BIAS_Z
    weight = rule(factor * score_variance, pathwise_variance, factor.sqrt() * covariance)
    return torch.where(biased, 0.0, weight)


def tail_factor(squares: Tensor) -> Tensor:
    """``exp(c / sqrt(n_eff))`` ``[...]``, by which an estimated variance is raised.

    ``n_eff = (sum_i s_i)^2 / sum_i s_i^2`` is the number of trajectories that carry the variance:
    1 if one carries all of it, ``n`` if all contribute alike. The relative standard error of a
    variance is about ``1 / sqrt(n_eff)``, so the factor moves its logarithm up by ``c`` standard
    errors. It is 1 where all squares are 0.

    Args:
        squares: ``s_i`` ``[..., n]``, squared deviations of each trajectory from the mean.
    """
    total = squares.sum(-1)
    relative = torch.where(total > 0, squares.square().sum(-1).sqrt() / total, 0.0)
    return (HEAVY_TAIL * relative).exp()


def difference_z(difference: Tensor) -> Tensor:
    """The z ``[...]`` of the squared mean of differences ``[..., n, P]``; 0 if all are 0.

    It is :attr:`GradientStatistics.significance
    <pgtoolkit.diagnostics.statistics.GradientStatistics.significance>` for a batch of samples.
    """
    return _raised_z(difference, lambda squares: torch.ones_like(squares[..., 0]))


def cautious_z(difference: Tensor) -> Tensor:
    """:func:`difference_z` with the variance of the differences times :func:`tail_factor`.

    With a heavy tail, the trajectories that would bring the mean of the differences back to 0 are
    most likely missing, and their variance with them.
    """
    return _raised_z(difference, tail_factor)


def _raised_z(difference: Tensor, factor_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The z ``[...]``, with the variance times ``factor_of`` squared deviations ``[..., n]``."""
    n, size = difference.shape[-2:]
    mean = difference.mean(-2, keepdim=True)
    centred = difference - mean
    squares = centred.square().sum(-1)
    variance, factor = squares.sum(-1) / (n - 1), factor_of(squares)
    # Both products have the same Frobenius norm; the smaller one is cheaper.
    product = centred @ centred.mT if n < size else centred.mT @ centred
    squared_covariance = unbiased_squared_covariance(product.square().sum((-2, -1)), variance, n)
    variance, squared_covariance = factor * variance, factor.square() * squared_covariance
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
