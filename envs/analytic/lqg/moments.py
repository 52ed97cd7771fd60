"""Mean, variance and covariance of policy-gradient estimators on LQG, exactly, without sampling.

Each estimate is a sum of products of two quadratic forms of Gaussian noise
(:mod:`pgtoolkit.envs.analytic.lqg.estimates`), so its moments are sums of the forms' joint moments.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.cost import LinearQuadratic, LQGGradient
from pgtoolkit.envs.analytic.lqg.estimates import (
    LQGEstimator,
    Terms,
    best_constant,
    estimate_terms,
    score_forms,
    whole_return,
)
from pgtoolkit.envs.analytic.lqg.quadratic_forms import joint_moment, product_covariance
from pgtoolkit.envs.analytic.lqg.trajectory import LinearPolicy, linear_trajectory


class GradientMoments(NamedTuple):
    """Of one trajectory's estimate, by parameter entry."""

    mean: LQGGradient
    variance: LQGGradient


def gradient_moments(
    system: LinearQuadratic, policy: LinearPolicy, estimator: LQGEstimator, lambda_: float
) -> GradientMoments:
    """Mean and variance, as ``LQG.gradient_moments`` says."""
    moments = [
        torch.stack([joint_moment(*terms).sum(), _covariance(terms, terms)])
        for terms in estimate_terms(system, policy, estimator, lambda_)
    ]
    mean, variance = torch.stack(moments, 1)
    return GradientMoments(_by_parameter(mean, policy), _by_parameter(variance, policy))


def gradient_covariance(
    system: LinearQuadratic,
    policy: LinearPolicy,
    first: LQGEstimator,
    second: LQGEstimator,
    lambda_: float,
) -> LQGGradient:
    """Covariance on the same trajectories, as ``LQG.gradient_covariance`` says."""
    pairs = zip(
        estimate_terms(system, policy, first, lambda_),
        estimate_terms(system, policy, second, lambda_),
        strict=True,
    )
    return _by_parameter(torch.stack([_covariance(*pair) for pair in pairs]), policy)


def optimal_baseline(system: LinearQuadratic, policy: LinearPolicy) -> LQGGradient:
    """The best constant baselines, as ``LQG.optimal_baseline`` says."""
    linear = linear_trajectory(system, policy)
    whole = whole_return(system, linear)
    best = [best_constant(score.sum(0), whole) for score in score_forms(linear, policy)]
    return _by_parameter(torch.stack(best), policy)


def _covariance(first: Terms, second: Terms) -> Tensor:
    """``sum_{t, t'} Cov(q_t r_t, q'_t' r'_t')``, for one ``t`` and all ``t'`` at a time.

    All pairs at once would be faster for small systems, and would not fit for large ones.
    """
    rows = [product_covariance(q, r, *second).sum() for q, r in zip(*first, strict=True)]
    return torch.stack(rows).sum()


def _by_parameter(entries: Tensor, policy: LinearPolicy) -> LQGGradient:
    """From the order of ``estimate_terms``."""
    m, n = policy.K.shape
    rows = entries.reshape(m, n + 2)
    return LQGGradient(rows[:, :n], rows[:, n], rows[:, n + 1])
