"""Mean, variance and covariance of policy-gradient estimates on LQG, exactly, without sampling.

The estimate of one parameter entry from one trajectory is a sum of products of two quadratic forms
of its noise::

    g = sum_t q_t r_t

For the score function these are the score of a step and its weight. The estimates by pathwise and
by a quadratic critic are one quadratic form, and the other factor is the constant 1. The moments of
``g`` are sums of the forms' joint moments (:mod:`pgtoolkit.envs.analytic.lqg.quadratic_forms`).
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.cost import (
    LQGGradient,
    action_value_matrices,
    value_matrices,
)
from pgtoolkit.envs.analytic.lqg.quadratic_forms import (
    add_constant,
    affine_product,
    conditional_expectation,
    expectation,
    joint_cumulant,
    joint_moment,
    product_covariance,
)
from pgtoolkit.envs.analytic.lqg.system import LinearPolicy, LinearQuadratic
from pgtoolkit.envs.analytic.lqg.trajectory import (
    LinearTrajectory,
    action_gradients,
    critic_slopes,
    discounted_sum,
    linear_trajectory,
    reward_forms,
    value_forms,
)
from pgtoolkit.errors import RequestError

LQGEstimator: TypeAlias = Literal[
    "score_function",
    "optimal_baseline",
    "reward_to_go",
    "reward_to_go_value",
    "gae",
    "advantage",
    "pathwise",
    "critic",
]
"""The estimators whose formulas ``LQG.gradient_moments`` lists."""

Terms: TypeAlias = tuple[Tensor, Tensor]
"""``q_t`` and ``r_t``, ``[T, X, X]`` each, of one parameter entry."""


class GradientMoments(NamedTuple):
    """Moments of one trajectory's estimate of the gradient, for each parameter entry."""

    mean: LQGGradient
    variance: LQGGradient


def gradient_moments(
    system: LinearQuadratic,
    policy: LinearPolicy,
    estimator: LQGEstimator,
    lambda_: float,
    q_error: Tensor,
) -> GradientMoments:
    """Mean and variance of an estimate. See ``LQG.gradient_moments``."""
    moments = [
        torch.stack([joint_moment(*terms).sum(), _covariance(terms, terms)])
        for terms in estimate_terms(system, policy, estimator, lambda_, q_error)
    ]
    mean, variance = torch.stack(moments, 1)
    return GradientMoments(_by_parameter(mean, policy), _by_parameter(variance, policy))


def gradient_covariance(
    system: LinearQuadratic,
    policy: LinearPolicy,
    first: LQGEstimator,
    second: LQGEstimator,
    lambda_: float,
    q_error: Tensor,
) -> LQGGradient:
    """Covariance of two estimates from one trajectory. See ``LQG.gradient_covariance``."""
    pairs = zip(
        estimate_terms(system, policy, first, lambda_, q_error),
        estimate_terms(system, policy, second, lambda_, q_error),
        strict=True,
    )
    return _by_parameter(torch.stack([_covariance(*pair) for pair in pairs]), policy)


def optimal_baseline(system: LinearQuadratic, policy: LinearPolicy) -> LQGGradient:
    """The best constant baseline of each parameter entry. See ``LQG.optimal_baseline``."""
    linear = linear_trajectory(system, policy)
    whole = whole_return(system, linear)
    best = [best_constant(score.sum(0), whole) for score in score_forms(linear, policy)]
    return _by_parameter(torch.stack(best), policy)


def estimate_terms(
    system: LinearQuadratic,
    policy: LinearPolicy,
    estimator: LQGEstimator,
    lambda_: float,
    q_error: Tensor,
) -> Iterator[Terms]:
    """The terms of each parameter entry, in the order ``K_i1 .. K_in, k_i, sigma_i``, row by row.

    Raises:
        RequestError: there is no such estimator, ``lambda_`` is not from 0 to 1, or a sigma is 0
            and the estimator is neither pathwise nor the critic's.
    """
    _check_request(estimator, lambda_)
    linear = linear_trajectory(system, policy)
    if estimator == "pathwise":
        return _pathwise_terms(action_gradients(system, linear, policy), linear)
    if estimator == "critic":
        matrices = action_value_matrices(system, policy) + q_error
        return _pathwise_terms(critic_slopes(system, linear, matrices), linear)
    scores = score_forms(linear, policy)
    if estimator == "score_function":
        whole = whole_return(system, linear)
        return ((score.sum(0, True), whole[None]) for score in scores)
    if estimator == "optimal_baseline":
        return _optimal_baseline_terms(scores, whole_return(system, linear))
    discount = system.gamma ** torch.arange(system.horizon, dtype=torch.float64)
    weight = step_weights(system, linear, policy, estimator, lambda_)
    weight = discount[:, None, None] * weight
    return ((score, weight) for score in scores)


def score_forms(linear: LinearTrajectory, policy: LinearPolicy) -> Iterator[Tensor]:
    """The scores ``dlog pi(u_t | s_t) / dtheta`` ``[H, X, X]``, for each parameter entry.

    ``eps_i s_j / sigma_i`` for ``K_ij``, ``eps_i / sigma_i`` for ``k_i`` and ``(eps_i^2 - 1) /
    sigma_i`` for ``sigma_i``.

    Raises:
        RequestError: a sigma is 0.
    """
    if bool((policy.sigma == 0).any()):
        raise RequestError(
            "a sigma is 0: an action without noise has no density, so there is no score function. "
            "Give a positive sigma, or use the estimator 'pathwise' or 'critic'"
        )
    signal = linear.exploration / policy.sigma.unsqueeze(-1)
    # A score has mean zero. For sigma, subtracting the mean gives the -1.
    return (add_constant(form, -expectation(form)) for form in _parameter_forms(linear, signal))


def whole_return(system: LinearQuadratic, linear: LinearTrajectory) -> Tensor:
    """The return ``sum_t gamma^t r_t`` ``[X, X]``."""
    return discounted_sum(reward_forms(system, linear), system.gamma)[0]


def step_weights(
    system: LinearQuadratic,
    linear: LinearTrajectory,
    policy: LinearPolicy,
    estimator: LQGEstimator,
    lambda_: float,
) -> Tensor:
    """The factor ``[H, X, X]`` of ``gamma^t`` and of the score of step ``t``.

    All but the reward-to-go are made of TD errors ``delta_t = r_t + gamma V_{t+1} - V_t``. Their
    expectation given ``(s_t, u_t)`` is the advantage ``Q_t - V_t``. Their sum discounted by ``gamma
    lambda`` is GAE (Schulman et al. 2016), which at ``lambda = 1`` is the return less the value.
    """
    rewards = reward_forms(system, linear)
    if estimator == "reward_to_go":
        return discounted_sum(rewards, system.gamma)
    values = value_forms(linear, value_matrices(system, policy))
    delta = rewards + system.gamma * values[1:] - values[:-1]
    if estimator == "advantage":
        return conditional_expectation(delta, linear.known)
    return discounted_sum(delta, system.gamma * (lambda_ if estimator == "gae" else 1.0))


def best_constant(score: Tensor, whole: Tensor) -> Tensor:
    """``b = E[R S^2] / E[S^2]``, the constant for which ``(R - b) S`` has the least variance.

    0 where the score is always 0, so that every constant gives the same variance.

    Args:
        score: ``[X, X]`` the sum of the steps' scores ``S``.
        whole: ``[X, X]`` the return ``R``.
    """
    information = joint_cumulant(score, score)
    best = joint_moment(score, score, whole) / information
    return torch.where(information > 0, best, torch.zeros_like(best))


def _optimal_baseline_terms(scores: Iterator[Tensor], whole: Tensor) -> Iterator[Terms]:
    for score in scores:
        total = score.sum(0)
        yield total[None], add_constant(whole, -best_constant(total, whole))[None]


def _pathwise_terms(by_action: Tensor, linear: LinearTrajectory) -> Iterator[Terms]:
    for form in _parameter_forms(linear, by_action):
        gradient = form.sum(0, True)
        yield add_constant(torch.zeros_like(gradient), 1.0), gradient


def _parameter_forms(linear: LinearTrajectory, signal: Tensor) -> Iterator[Tensor]:
    """``signal_t,i du_t,i/dtheta`` ``[H, X, X]`` for each parameter entry.

    In row ``i`` these are the signal times each ``s_j``, times 1 and times ``eps_i``.

    Args:
        linear: the trajectory.
        signal: ``[H, m, X]``, one for each action, affine in the noise.
    """
    one = torch.zeros_like(signal[:, 0])
    one[:, 0] = 1.0
    for i in range(signal.shape[1]):
        for factor in (*linear.state[:-1].unbind(1), one, linear.exploration[:, i]):
            yield affine_product(signal[:, i], factor)


def _check_request(estimator: LQGEstimator, lambda_: float) -> None:
    names = get_args(LQGEstimator)
    if estimator not in names:
        raise RequestError(f"LQG has no estimator {estimator!r}: choose one of {', '.join(names)}")
    if not 0 <= lambda_ <= 1:
        raise RequestError(f"lambda_ is {lambda_}: it must be from 0 to 1")


def _covariance(first: Terms, second: Terms) -> Tensor:
    """``sum_{t, t'} Cov(q_t r_t, q'_t' r'_t')``, for one ``t`` and all ``t'`` at a time.

    All pairs at once would be faster for small systems, but too large in memory for large ones.
    """
    rows = [product_covariance(q, r, *second).sum() for q, r in zip(*first, strict=True)]
    return torch.stack(rows).sum()


def _by_parameter(entries: Tensor, policy: LinearPolicy) -> LQGGradient:
    """Splits numbers in the order of :func:`estimate_terms` by parameter."""
    m, n = policy.K.shape
    rows = entries.reshape(m, n + 2)
    return LQGGradient(rows[:, :n], rows[:, n], rows[:, n + 1])
