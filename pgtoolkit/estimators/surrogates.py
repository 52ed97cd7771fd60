"""The score-function and the pathwise estimator of a policy gradient, on one window.

A *surrogate* is a function of the policy's parameters whose gradient is the estimate of the policy
gradient; its value means nothing. Both estimators take ``(policy, window, weight)`` and return a
surrogate ``[N]``, unreduced: the gradient of entry ``i`` is trajectory ``i``'s estimate. The
optimiser increases the mean of the surrogate, and the diagnostics measure the variance of the
gradients of its entries.

====================  =======================================  =================
estimator             surrogate of one trajectory              weight
====================  =======================================  =================
score function        ``sum_t w_t log pi(u_t | s_t)``           ``w_t`` ``[T, N]``
pathwise              ``sum_t g_t . u(s_t, eps_t; theta)``      ``g_t = dJ/du_t`` ``[T, N, A]``
====================  =======================================  =================

The pathwise weight is the *action gradient*: the total derivative of the objective by each
pre-squash action, through the dynamics and through all later actions. With it the parameter
gradient is ``sum_t dJ/du_t du_t/dtheta`` at fixed states and noise. This is exactly the gradient by
back-propagation through time (Heess et al. 2015, section 4), in one batched pass.

A function ``X_of(distribution, window, weight)`` is ``X(policy, window, weight)`` for a caller that
already has the policy's distribution at the window's observations.
"""

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.returns import reward_to_go, segment_discount
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.window import Window
from pgtoolkit.shapes import check_shape


def score_function_surrogate(policy: Policy, window: Window, weight: Tensor) -> Tensor:
    """``sum_t weight_t log pi(u_t | s_t)`` ``[N]``, the score-function surrogate.

    *Estimates* ``d/dtheta E[J]``. *With* ``E[sum_t w_t dlog pi_t/dtheta]``, where ``w_t`` is the
    return after action ``t`` minus any baseline that does not depend on that action. *Requires* a
    density that is differentiable in theta, and *nothing* of the environment. Williams (1992).

    Args:
        policy: the policy that acted.
        window: its data; observations and actions are detached here.
        weight: ``[T, N]``; detached, and set to 0 on steps that are not valid.
    """
    return score_function_surrogate_of(policy(window.obs.detach()), window, weight)


def score_function_surrogate_of(
    distribution: Distribution, window: Window, weight: Tensor
) -> Tensor:
    """:func:`score_function_surrogate` from the policy's distribution."""
    check_shape("weight", weight, window.num_steps, window.num_envs)
    weight = torch.where(window.valid, weight, torch.zeros_like(weight))
    return -distribution.log_derivative_loss(window.pre_action, weight).sum(0)


def pathwise_surrogate(policy: Policy, window: Window, weight: Tensor) -> Tensor:
    """``sum_t weight_t . (mu(s_t) + sigma(s_t) eps_t)`` ``[N]``, the pathwise surrogate.

    *Estimates* ``d/dtheta E[J]``. *With* ``E[sum_t dJ/du_t du_t/dtheta]``. *Requires* an action
    that is a differentiable function of noise, and an objective that is continuous in the action
    and differentiable almost everywhere: a jump does not show in the derivative, and biases the
    estimate.

    Args:
        policy: the policy that acted.
        window: its data; observations are detached here, and the noise is the window's.
        weight: ``[T, N, A]`` the action gradient; detached, and set to 0 on steps that are not
            valid.
    """
    return pathwise_surrogate_of(policy(window.obs.detach()), window, weight)


def pathwise_surrogate_of(distribution: Distribution, window: Window, weight: Tensor) -> Tensor:
    """:func:`pathwise_surrogate` from the policy's distribution."""
    check_shape("weight", weight, *window.pre_action.shape)
    weight = torch.where(window.valid.unsqueeze(-1), weight, torch.zeros_like(weight)).detach()
    return (weight * distribution.pre_action(window.noise)).sum((0, 2))


def window_objective(window: Window, next_value: Tensor, gamma: float) -> Tensor:
    """``J`` ``[N]``: the discounted reward of all segments of a trajectory, with their bootstraps.

    ``J_i = sum_segments [ sum_k gamma^k r_k + gamma^len V(next_obs_end) (1 - terminated_end) ]``
    (Xu et al. 2022, eq. 5). A segment starts at the window's start or after the end of another one,
    and ``k`` counts from its start.

    Args:
        window: plain or differentiable.
        next_value: ``[T, N]`` ``V(next_obs)``, zeros for no bootstrap.
        gamma: discount factor.
    """
    check_shape("next_value", next_value, window.num_steps, window.num_envs)
    discount = segment_discount(window.segment_end, gamma).to(window.reward)
    # Masked by where, not by a product, because 0 * NaN is NaN, also in the backward pass.
    zero = torch.zeros_like(window.reward)
    value = torch.where(window.segment_end & ~window.terminated, gamma * next_value, zero)
    return torch.where(window.valid, discount * (window.reward + value), zero).sum(0)


def action_gradient(objective: Tensor, window: Window) -> Tensor:
    """``dJ/du`` ``[T, N, A]``: the total derivative of the objective by each pre-squash action.

    It includes the effect through squashing, reward, dynamics and every later action. The window's
    graph is freed.

    Args:
        objective: ``[N]``, computed from the window with its graph.
        window: differentiable, from :func:`pgtoolkit.rollouts.rollout.unroll`.

    Raises:
        RequestError: the window is plain, its graph has been freed, or no differentiable path joins
            the actions to the objective.
    """
    check_shape("objective", objective, window.num_envs)
    if window.action_shift is None:
        raise RequestError(
            "this window is plain: the action gradient needs one from `unroll` on a differentiable "
            "environment"
        )
    gradient = None
    if objective.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(
                objective.sum(), window.action_shift, allow_unused=True
            )
        except RuntimeError as error:
            if "backward through the graph a second time" not in str(error):
                raise
            raise RequestError(
                "the graph of this window is gone, because an update frees it: collect a new "
                "window for each update. If this is a new one, the environment has kept a tensor "
                "with its graph from an earlier window: detach it there"
            ) from error
    if gradient is None:
        raise RequestError(
            "no differentiable path joins the actions to the objective: reward and next state do "
            "not depend on the action in a way that torch can follow. A reward of events (such as "
            "1 for each step without a fall) has none: use a smooth one (SurrogateCost), an agent "
            "with a value function (`shac`), or the score function (`reinforce`). Otherwise check "
            "that the environment uses torch operations only (`pgtoolkit check-env`)"
        )
    return gradient


def matched_score_weight(
    window: Window, next_value: Tensor, baseline: Tensor, gamma: float
) -> Tensor:
    """The score function's weight for :func:`window_objective`: ``gamma^k (G_t - b_t)`` ``[T, N]``.

    ``G_t`` is the reward-to-go with the same bootstrap, and ``k`` counts from the segment's start.
    With this weight the two estimators have the same expectation if pathwise is unbiased, and their
    difference on the same trajectories tests for its bias.

    Args:
        window: plain or differentiable; detached here.
        next_value: ``[T, N]`` as given to the objective.
        baseline: ``[T, N]`` ``b_t``, which must not depend on the actions from ``t`` on.
        gamma: discount factor.
    """
    reward = torch.where(window.valid, window.reward, torch.zeros_like(window.reward)).detach()
    returns = reward_to_go(
        reward,
        window.terminated,
        window.truncated,
        gamma=gamma,
        next_value=next_value.detach(),
        segment_end=window.segment_end,
    )
    return segment_discount(window.segment_end, gamma).to(returns) * (returns - baseline.detach())


def score_action_gradient(policy: Policy, window: Window, weight: Tensor) -> Tensor:
    """The score function's estimate of ``dJ/du`` ``[T, N, A]``: ``w_t dlog pi / dmu_t``.

    For a Gaussian policy it is ``w_t (u_t - mu_t) / sigma_t^2``. It has the same expectation as
    :func:`action_gradient`, so the two can be compared step by step.

    Raises:
        RequestError: the policy is not Gaussian.
    """
    return score_action_gradient_of(policy(window.obs.detach()), window, weight)


@torch.no_grad()
def score_action_gradient_of(distribution: Distribution, window: Window, weight: Tensor) -> Tensor:
    """:func:`score_action_gradient` from the policy's distribution."""
    gaussian = distribution.gaussian
    if gaussian is None:
        raise RequestError("only a Gaussian policy has an action gradient")
    weight = torch.where(window.valid, weight, torch.zeros_like(weight)).unsqueeze(-1)
    shift = window.pre_action.detach() - gaussian.mean
    return weight * shift * torch.exp(-2 * gaussian.log_std)
