"""Surrogates of ``E_a[Q(s, a)]`` by critic, score function or both (Voelcker et al. 2025).

A surrogate ``[M]`` has, at each of ``M`` states, the gradient of ``E_a[Q(s, a)]`` by the policy.
"""

from typing import Protocol

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.estimators.mixing import covariance_weight
from pgtoolkit.estimators.proximal import probability_ratio


class Taken(Protocol):
    """The actions that were taken at the ``M`` states."""

    @property
    def pre_action(self) -> Tensor: ...
    @property
    def log_prob(self) -> Tensor:
        """``[M]``, of the policy that took them."""

    @property
    def advantage(self) -> Tensor:
        """``[M]``."""


def by_critic(distribution: Distribution, value: Tensor, taken: Taken) -> Tensor:
    """``Q(s, a)`` ``[M]`` at a fresh action, which carries the graph: the pathwise gradient."""
    return value


def by_score_function(distribution: Distribution, value: Tensor, taken: Taken) -> Tensor:
    """``pi(a) / pi_old(a) (G - V(s))`` ``[M]`` at the action that was taken.

    At the policy that took it, the gradient is that of the score function; at a later one, the
    importance weight keeps its expectation that of ``E_a[Q(s, a)]``.
    """
    log_prob = distribution.log_prob_of_pre_action(taken.pre_action)
    return probability_ratio(log_prob - taken.log_prob) * taken.advantage


def by_both(distribution: Distribution, value: Tensor, taken: Taken) -> Tensor:
    """``(1 - w) score function + w critic`` ``[M]`` with the weight of least variance.

    Variances and covariance are those of gradients by the Gaussian's mean and log standard
    deviation, in units of the standard deviation, over the samples of a minibatch. Each half of it
    has the weight that the other half says, so no sample weighs itself (:mod:`pgtoolkit.estimators.
    mixing`). The mix is unbiased where both are, and is as biased as the weighted critic otherwise.
    """
    by_score = by_score_function(distribution, value, taken)
    weight = least_variance_weight(distribution, by_score, value)
    return (1 - weight) * by_score + weight * value


def least_variance_weight(distribution: Distribution, score: Tensor, path: Tensor) -> Tensor:
    """The weight ``[M]`` on the path, one for each half of the samples, from the other half."""
    assert distribution.gaussian is not None
    mean, log_std = distribution.gaussian
    std = log_std.detach().exp()

    def centred(surrogate: Tensor) -> tuple[Tensor, ...]:
        by_mean, by_log_std = torch.autograd.grad(
            surrogate.sum(), (mean, log_std), retain_graph=True
        )
        rows = torch.cat([by_mean * std, by_log_std], -1).detach()
        return tuple(half - half.mean(0) for half in rows.chunk(2))

    weights = []
    for first, second in zip(centred(score), centred(path), strict=True):
        moments = (first * first, second * second, first * second)
        weights.append(covariance_weight(*(x.sum(-1).mean() for x in moments)))
    halves = zip(weights[::-1], score.chunk(2), strict=True)
    return torch.cat([weight.expand_as(half) for weight, half in halves])


SURROGATES = {"critic": by_critic, "score_function": by_score_function, "mixed": by_both}
"""The surrogate ``[M]`` of each estimator, from distribution, value of a fresh action and batch."""
