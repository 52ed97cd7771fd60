"""The policy-gradient estimates of one LQG trajectory, as quadratic forms of its noise.

The estimate of one parameter entry is a sum of products of two forms::

    g = sum_t q_t r_t

the score of a step and its weight for the score function; the constant 1 and the whole derivative
for the pathwise estimator, which is quadratic by itself.
"""

from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.cost import LinearQuadratic
from pgtoolkit.envs.analytic.lqg.quadratic_forms import (
    add_constant,
    affine_product,
    conditional_expectation,
    expectation,
    joint_cumulant,
    joint_moment,
)
from pgtoolkit.envs.analytic.lqg.trajectory import (
    LinearPolicy,
    LinearTrajectory,
    action_gradients,
    discounted_sum,
    linear_trajectory,
    reward_forms,
    value_forms,
    value_matrices,
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
]
"""What each one is: ``LQG.gradient_moments``."""

Terms: TypeAlias = tuple[Tensor, Tensor]
"""``q_t`` and ``r_t``, ``[T, X, X]`` each, of one parameter entry."""


def estimate_terms(
    system: LinearQuadratic, policy: LinearPolicy, estimator: LQGEstimator, lambda_: float
) -> Iterator[Terms]:
    """The terms of one parameter entry after another: row by row ``K_i1 .. K_in, k_i, sigma_i``.

    Raises:
        RequestError: there is no such estimator, ``lambda_`` is not from 0 to 1, or a sigma is 0
            and the estimator is not pathwise.
    """
    _check_request(estimator, lambda_)
    linear = linear_trajectory(system, policy)
    if estimator == "pathwise":
        return _pathwise_terms(action_gradients(system, linear, policy), linear)
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
    """``dlog pi(u_t | s_t) / dtheta`` ``[H, X, X]``, of one parameter entry after another.

    ``eps_i s_j / sigma_i`` for ``K_ij``, ``eps_i / sigma_i`` for ``k_i`` and ``(eps_i^2 - 1) /
    sigma_i`` for ``sigma_i``.

    Raises:
        RequestError: a sigma is 0.
    """
    if bool((policy.sigma == 0).any()):
        raise RequestError(
            "a sigma is 0: an action without noise has no density, so there is no score function. "
            "Give a positive sigma, or use the estimator 'pathwise'"
        )
    signal = linear.exploration / policy.sigma.unsqueeze(-1)
    # A score has mean zero: that is where the -1 of sigma's comes from.
    return (add_constant(form, -expectation(form)) for form in _parameter_forms(linear, signal))


def whole_return(system: LinearQuadratic, linear: LinearTrajectory) -> Tensor:
    """``sum_t gamma^t r_t`` ``[X, X]``."""
    return discounted_sum(reward_forms(system, linear), system.gamma)[0]


def step_weights(
    system: LinearQuadratic,
    linear: LinearTrajectory,
    policy: LinearPolicy,
    estimator: LQGEstimator,
    lambda_: float,
) -> Tensor:
    """What multiplies ``gamma^t`` and the score of step ``t`` ``[H, X, X]``.

    All but the reward-to-go are made of TD errors ``delta_t = r_t + gamma V_{t+1} - V_t``. Their
    expectation at ``(s_t, u_t)`` is the advantage ``Q_t - V_t``, their sum discounted by ``gamma
    lambda`` is GAE (Schulman et al. 2016), and that at ``lambda = 1`` the return less the value.
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
    """``E[R S^2] / E[S^2]``, for which ``(R - b) S`` has the least variance.

    0 where the score is always 0 and every constant does the same.

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
    """``signal_t,i du_t,i/dtheta`` ``[H, X, X]``: for row ``i``, signal times ``s_j``, 1, eps_i.

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
