"""One gradient from two: the score function and pathwise, mixed on the same trajectories.

``g_i = (1 - a) g_i(score function) + a g_i(pathwise)`` is unbiased for every weight ``a`` that does
not depend on trajectory ``i``, wherever both estimators are. With ``V_s`` and ``V_r`` the variance
of one trajectory's gradient by either (the trace of its covariance), and ``C`` the trace of the
covariance of the two on the same trajectory,

    ``Var(a) = (1 - a)^2 V_s + a^2 V_r + 2 a (1 - a) C``, least at ``(V_s - C) / (V_s + V_r - 2C)``.

The weights are cross-fitted and guarded, see :mod:`pgtoolkit.estimators.cross_fitting`: fitted on
the very gradients that it weighs, a weight leans to whichever happens to be small, and biases the
mix.
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

LOWEST, HIGHEST = -1.0, 2.0
"""Limits of :func:`covariance_weight`."""

NO_PREFERENCE = 0.5
"""The weight where all weights are equally good."""


def covariance_weight(
    score_variance: Tensor, pathwise_variance: Tensor, covariance: Tensor
) -> Tensor:
    """``(V_s - C) / (V_s + V_r - 2C)``, the weight on pathwise that has the least variance.

    It is beyond 1 where ``C > V_r``, below 0 where ``C > V_s``: then the noisier of the two is best
    subtracted. It is kept within ``[-1, 2]``, so that a few trajectories cannot make it absurd. An
    optimum outside of that means that the two are all but one, and that it matters little. Where
    their difference does not vary every weight is as good, and the weight is 1/2.

    Args:
        score_variance: ``V_s``, any shape; so are the other two.
        pathwise_variance: ``V_r``.
        covariance: ``C``, on the same trajectories.
    """
    spread = score_variance + pathwise_variance - 2 * covariance
    weight = torch.where(spread > 0, (score_variance - covariance) / spread, NO_PREFERENCE)
    return weight.clamp(LOWEST, HIGHEST)


def inverse_variance_weight(
    score_variance: Tensor, pathwise_variance: Tensor, covariance: Tensor | None = None
) -> Tensor:
    """``V_s / (V_s + V_r)``, the weight on pathwise that is best if the two are independent.

    Total propagation (Parmas et al. 2018) and IVW-H (Onoda et al. 2026) weigh so. On the same
    trajectories it forgoes what the covariance is worth, and may do worse than pathwise alone.
    Within ``[0, 1]``; 1/2 where nothing varies.

    Args:
        score_variance: ``V_s``, any shape; so is the next.
        pathwise_variance: ``V_r``.
        covariance: not used; it is here so that this is a ``WeightRule`` too.
    """
    total = score_variance + pathwise_variance
    return torch.where(total > 0, score_variance / total, NO_PREFERENCE)


def cross_fitted_weight(
    score: Mapping[str, Tensor],
    pathwise: Mapping[str, Tensor],
    rule: WeightRule = covariance_weight,
) -> Tensor:
    """The weight on pathwise of every trajectory ``[N]``, in float64, fitted on the other fold.

    One number for the whole gradient. 0 where the guard finds pathwise biased.

    Args:
        score: gradients by the score function ``{name: [N, *shape]}``.
        pathwise: by pathwise, for the same objective on the same trajectories.
        rule: the weight from the traces of covariances.

    Raises:
        RequestError: fewer than six trajectories.
    """
    pathwise = {name: pathwise[name] for name in score}
    return cross_fitted(flatten_gradients(score), flatten_gradients(pathwise), rule)


def cross_fitted_step_weights(
    score: Tensor, pathwise: Tensor, rule: WeightRule = covariance_weight
) -> Tensor:
    """The weight on pathwise of every step and trajectory ``[T, N]``, fitted on the other fold.

    From gradients in action space, as IVW-H, so it costs no parameter gradient. Given a state, both
    estimate the derivative of its ``Q(s, u)``, so a mix with a weight of its own for each step is
    unbiased where the whole one is. States that differ add the same to ``V_s``, ``V_r`` and ``C``:
    in :func:`covariance_weight` it cancels, and draws :func:`inverse_variance_weight` to 1/2.

    Args:
        score: ``[T, N, A]`` :func:`score_action_gradient
            <pgtoolkit.estimators.surrogates.score_action_gradient>`, 0 on steps that never
            happened.
        pathwise: ``[T, N, A]`` :func:`action_gradient
            <pgtoolkit.estimators.surrogates.action_gradient>`.
        rule: the weight from variances and
        covariances, summed over action dimensions.

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
        score: ``{name: [N, *shape]}``.
        pathwise: the same names and shapes.
        weight: ``a`` ``[N]``, the weight on pathwise.
    """

    def mixed(one: Tensor, other: Tensor) -> Tensor:
        check_shape("weight", weight, one.shape[0])
        share = weight.to(one).reshape(-1, *[1] * (one.dim() - 1))
        return (1 - share) * one + share * other

    return {name: mixed(score[name], pathwise[name]) for name in score}


def mixed_surrogate(
    policy: Policy, window: Window, score_weight: Tensor, pathwise_weight: Tensor, mix: Tensor
) -> Tensor:
    """``sum_t (1 - a_t) w_t log pi(u_t | s_t) + a_t g_t . u(s_t, eps_t; theta)`` ``[N]``.

    The twin surrogates, each with its share of every step.

    Mixing action gradients instead, ``(1 - a) w eps / sigma + a g`` in the pathwise surrogate, has
    the right mean for ``mu`` only. Through ``u = mu + sigma eps`` the score's part gives
    ``E[w eps^2] / sigma`` for ``sigma``, where ``dlog pi / dsigma`` has ``E[w (eps^2 - 1)] /
    sigma``: a bias of ``E[w] / sigma``, unless ``E[w | s] = 0``, which a learned value does not
    grant. So the score function keeps its own surrogate.

    Args:
        policy: the policy that acted.
        window: its data, as for the twins.
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
    """:func:`mixed_surrogate` of the policy's distribution at the window's observations."""
    check_shape("mix", mix, window.num_steps, window.num_envs)
    by_score = score_function_surrogate_of(distribution, window, (1 - mix) * score_weight)
    by_path = pathwise_surrogate_of(distribution, window, mix.unsqueeze(-1) * pathwise_weight)
    return by_score + by_path
