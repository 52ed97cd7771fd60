"""The action gradients of a window, reused for a policy that has moved since (arXiv 2508.06214).

One backward pass through the environment gives ``g_t = dJ/du_t``. A policy that has moved would
take the same action ``u_t`` with the noise ``eps_t = (u_t - mu(s_t)) / sigma(s_t)``, and with the
importance weight ``w_t = pi(a_t|s_t) / pi_old(a_t|s_t)`` the surrogate

    ``sum_t w_t g_t . (mu(s_t; theta) + sigma(s_t; theta) eps_t)``

gives a gradient at its own parameters, without another step of the environment. ``g_t`` stays that
of the old policy: it contains what the old policy did in the later steps.
"""

from typing import NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.estimators.proximal import probability_ratio
from pgtoolkit.estimators.surrogates import pathwise_surrogate_of
from pgtoolkit.estimators.value_gradient import with_inferred_noise
from pgtoolkit.rollouts.window import Window


@final
class Reused(NamedTuple):
    """What a policy takes from a window of another."""

    window: Window
    """With the noise under which this policy would have taken the actions."""
    action_gradient: Tensor
    """``w_t g_t`` ``[T, N, A]``."""
    inside: Tensor
    """``[T, N]`` bool: the steps whose weight was not set to 0."""

    def surrogate(self, distribution: Distribution) -> Tensor:
        """``sum_t w_t g_t . u(s_t, eps_t; theta)`` ``[N]``."""
        return pathwise_surrogate_of(distribution, self.window, self.action_gradient)


@torch.no_grad()
def reused(
    window: Window,
    distribution: Distribution,
    action_gradient: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> Reused:
    """The window and its action gradients for a policy as it is now.

    A weight outside of ``[1 - clip_low, 1 + clip_high]`` is 0, whatever the sign of ``g_t``: a step
    that the policy has left, or runs towards, is not followed any more.

    Args:
        window: plain; its ``log_prob`` is that of the policy that acted.
        distribution: the policy's now, at the window's observations.
        action_gradient: ``dJ/du`` ``[T, N, A]``.
        clip_low: below 1, or so large that no small weight is cut.
        clip_high: at least 0.

    Raises:
        RequestError: the distribution is no diagonal Gaussian.
    """
    inferred = with_inferred_noise(window, distribution)
    ratio = probability_ratio(
        distribution.log_prob_of_pre_action(window.pre_action) - window.log_prob
    )
    inside = (ratio >= 1 - clip_low) & (ratio <= 1 + clip_high)
    weight = torch.where(inside, ratio, 0.0)
    return Reused(inferred, weight.unsqueeze(-1) * action_gradient, inside)
