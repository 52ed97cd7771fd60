"""Mixtures of the score function's and the pathwise gradient on the same trajectories.

``g_i = (1 - a) g_i(score function) + a g_i(pathwise)`` is unbiased if both estimators are and the
weight ``a`` does not depend on trajectory ``i``. Let ``V_s`` and ``V_r`` be the variances of one
trajectory's gradient by the score function and by pathwise (traces of covariances), and ``C`` the
trace of their covariance on the same trajectory. Then

    ``Var(a) = (1 - a)^2 V_s + a^2 V_r + 2 a (1 - a) C``, least at ``(V_s - C) / (V_s + V_r - 2C)``.

The weights are cross-fitted and guarded, see :mod:`pgtoolkit.estimators.cross_fitting`. A weight
that is fitted on the gradients that it weighs would favour the estimates that happen to be small,
and bias the mix.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pgtoolkit.diagnostics.statistics import flatten_gradients
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.estimators.cross_fitting import WeightRule, cross_fitted
from pgtoolkit.estimators.surrogates import pathwise_surrogate_of, score_function_surrogate_of
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.window import Window
from pgtoolkit.shapes import check_shape

MIN_WEIGHT, MAX_WEIGHT = torch.finfo(torch.float32).tiny, 1.5
"""Limits of :func:`covariance_weight`. The lower one is 0 in every sum, but not equal to it: a
weight of exactly 0 says that pathwise was rejected as biased."""

EQUAL_WEIGHT = 0.5
"""The weight on pathwise where every weight gives the same variance."""


def covariance_weight(
    score_variance: Tensor, pathwise_variance: Tensor, covariance: Tensor
) -> Tensor:
    """``(V_s - C) / (V_s + V_r - 2C)``, the weight on pathwise with the least variance.

    It is above 1 where ``C > V_r``: there, the noisier estimate is best subtracted. It is clamped
    to ``[0, 1.5]``, because few trajectories may give a far too large weight. An optimum outside
    that range means that the two estimates are nearly equal, so that the weight has little effect.
    Where the variance of their difference is 0 the weight is 1/2.

    Args:
        score_variance: ``V_s``, any shape; so are the other two.
        pathwise_variance: ``V_r``.
        covariance: ``C``, on the same trajectories.
    """
    difference = score_variance + pathwise_variance - 2 * covariance
    weight = torch.where(difference > 0, (score_variance - covariance) / difference, EQUAL_WEIGHT)
    return weight.clamp(MIN_WEIGHT, MAX_WEIGHT)


def inverse_variance_weight(
    score_variance: Tensor, pathwise_variance: Tensor, covariance: Tensor | None = None
) -> Tensor:
    """``V_s / (V_s + V_r)``, the weight on pathwise with the least variance without correlation.

    It is used by total propagation (Parmas et al. 2018) and IVW-H (Onoda et al. 2026). On the same
    trajectories it ignores the covariance, and the mix may vary more than pathwise alone. It is
    within ``[0, 1]``, and 1/2 where both variances are 0.

    Args:
        score_variance: ``V_s``, any shape; so is the next.
        pathwise_variance: ``V_r``.
        covariance: not used; present because a ``WeightRule`` takes it.
    """
    total = score_variance + pathwise_variance
    return torch.where(total > 0, score_variance / total, EQUAL_WEIGHT)


def cross_fitted_weight(
    score: Mapping[str, Tensor],
    pathwise: Mapping[str, Tensor],
    rule: WeightRule = covariance_weight,
) -> Tensor:
    """The weight on pathwise of every trajectory ``[N]``, in float64, fitted on other folds.

    One weight is used for all parameters of a trajectory. It is 0 where pathwise is found biased
    (:func:`guarded_weight <pgtoolkit.estimators.cross_fitting.guarded_weight>`).

    Args:
        score: gradients by the score function ``{name: [N, *shape]}``.
        pathwise: gradients by pathwise, for the same objective on the same trajectories.
        rule: the weight from variances and covariance, which are traces over all parameters.

    Raises:
        RequestError: fewer than six trajectories.
    """
    pathwise = {name: pathwise[name] for name in score}
    return cross_fitted(flatten_gradients(score), flatten_gradients(pathwise), rule)


def cross_fitted_step_weights(
    score: Tensor, pathwise: Tensor, rule: WeightRule = covariance_weight
) -> Tensor:
    """The weight on pathwise of every step and trajectory ``[T, N]``, fitted on other folds.

    It is computed from gradients by the actions, as in IVW-H, so it needs no parameter gradients.
    Given a state, both estimators estimate the derivative of ``Q(s, u)`` by ``u``, so a mix with a
    different weight at each step is unbiased if both are. The variance between states adds the same
    amount to ``V_s``, ``V_r`` and ``C``: it cancels in :func:`covariance_weight`, but for the tail
    factor, and moves :func:`inverse_variance_weight` towards 1/2.

    Args:
        score: ``[T, N, A]`` :func:`score_action_gradient
            <pgtoolkit.estimators.surrogates.score_action_gradient>`, 0 on steps that are not valid.
        pathwise: ``[T, N, A]`` :func:`action_gradient
            <pgtoolkit.estimators.surrogates.action_gradient>`.
        rule: the weight from variances and covariance, which are sums over action dimensions.

    Raises:
        RequestError: fewer than six trajectories.
    """
    check_shape("score", score, None, None, None)
    return cross_fitted(score.double(), pathwise.double(), rule).to(score.dtype)


def mix_gradients(
    score: Mapping[str, Tensor], pathwise: Mapping[str, Tensor], weight: Tensor
) -> dict[str, Tensor]:
    """``(1 - a_i) g_i(score function) + a_i g_i(pathwise)``: ``{name: [N, *shape]}``.

    Args:
        score: gradients by the score function ``{name: [N, *shape]}``.
        pathwise: gradients by pathwise, of the same names and shapes.
        weight: ``a`` ``[N]``, the weight on pathwise.
    """

    def mixed(by_score: Tensor, by_path: Tensor) -> Tensor:
        check_shape("weight", weight, by_score.shape[0])
        share = weight.to(by_score).reshape(-1, *[1] * (by_score.dim() - 1))
        return (1 - share) * by_score + share * by_path

    return {name: mixed(score[name], pathwise[name]) for name in score}


def mixed_surrogate(
    policy: Policy, window: Window, score_weight: Tensor, pathwise_weight: Tensor, mix: Tensor
) -> Tensor:
    """``sum_t (1 - a_t) w_t log pi(u_t | s_t) + a_t g_t . u(s_t, eps_t; theta)`` ``[N]``.

    It is the sum of the score function's and the pathwise surrogate, each weighted at every step.

    The score function needs a surrogate of its own. If its action gradient ``w eps / sigma`` were
    mixed with ``g`` in the pathwise surrogate, the gradient by ``mu`` would be right, but that by
    ``sigma`` would be biased by ``E[w] / sigma``: through ``u = mu + sigma eps`` it would have the
    expectation ``E[w eps^2] / sigma``, where ``w dlog pi / dsigma`` has
    ``E[w (eps^2 - 1)] / sigma``. A learned value function does not make ``E[w | s]`` zero.

    Args:
        policy: the policy that acted.
        window: its data.
        score_weight: ``w`` ``[T, N]``.
        pathwise_weight: ``g`` ``[T, N, A]``, for the same objective.
        mix: ``a`` ``[T, N]``, the weight on pathwise.
    """
    distribution = policy(window.obs.detach())
    return mixed_surrogate_of(distribution, window, score_weight, pathwise_weight, mix)


def mixed_surrogate_of(
    distribution: Distribution,
    window: Window,
    score_weight: Tensor,
    pathwise_weight: Tensor,
    mix: Tensor,
) -> Tensor:
    """:func:`mixed_surrogate` from the policy's distribution at the window's observations."""
    check_shape("mix", mix, window.num_steps, window.num_envs)
    by_score = score_function_surrogate_of(distribution, window, (1 - mix) * score_weight)
    by_path = pathwise_surrogate_of(distribution, window, mix.unsqueeze(-1) * pathwise_weight)
    return by_score + by_path
