"""The objective whose gradient a critic's slope estimates, on one window.

Let ``k`` be the number of a step from its segment's start, ``H`` the segment's length, and
``alpha`` the temperature, 0 for an ordinary critic, and ``h`` the entropy that is worth nothing,
0 in ``sac`` and the target in ``reppo``. With the soft values of the policy ``pi``,

    ``Q(s, a) = r + gamma (1 - terminated) E[V(s')]``,
    ``V(s) = E_pi[Q(s, a) - alpha (log pi(a|s) + h)]``,

the objective of a segment is

    ``J = sum_{k<H} gamma^k (r_k - alpha (log pi(a_k|s_k) + h)) + gamma^H (1 - terminated) V(s_H)``,

with ``log pi`` in units of the action's box (:func:`log_prob_in_box
<pgtoolkit.distributions.box_units.log_prob_in_box>`), as in the agents,
where the policy's parameters act in the first ``H`` steps and ``V`` is a fixed function. Its
gradient has three estimates, with the action ``u_k`` before squashing.

The constant ``h`` has no slope. What it adds to ``J`` grows with the number of steps before an
episode terminates.

- *Pathwise*: ``sum_k dJ/du_k du_k/dtheta``. The total derivative contains ``-alpha log pi`` of this
  step, through its action, and of all later steps, through their states and actions, and
  ``V(s_H)`` through ``s_H``.
- *Score function*: ``sum_k gamma^k (G_k - b_k) dlog pi(a_k|s_k)/dtheta``. The return ``G_k`` from
  step ``k`` on begins with ``r_k - alpha (log pi(a_k|s_k) + h)``.
- *Critic*: ``sum_k gamma^k d(Q(s_k, a_k) - alpha log pi(a_k|s_k))/du_k du_k/dtheta``, where ``Q``
  stands for all that comes later. By the policy-gradient theorem its mean is that of the other two
  if ``Q`` is the policy's. Its slope is the expectation of pathwise's ``dJ/du_k`` given
  ``(s_k, a_k)``.

In all three, ``log pi`` also depends on theta directly, at a fixed state and action. That
derivative has the expectation ``E[dlog pi/dtheta] = 0`` and is left out.

An agent that climbs a critic takes ``d(Q - alpha log pi)/du`` without ``gamma^k``: it counts the
states of a late step as much as those of an early one. At every single state that is the same
direction in the action; summed over states it is not the gradient of ``J``.

The score function and pathwise depend on the critic only through ``V(s_H)``: they share an error of
it, discounted by ``gamma^H``.
"""

import dataclasses
from collections.abc import Callable
from typing import Self, final

import torch
from torch import Tensor

from pgtoolkit.agent import CriticView
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.box_units import log_prob_in_box
from pgtoolkit.estimators.returns import segment_discount
from pgtoolkit.estimators.signals import Signals, StateActionValue
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.policies.policy import Policy, without_normalizer
from pgtoolkit.rollouts.window import Window

DrawNoise = Callable[[], Tensor]
"""Draws standard noise ``[T, N, noise_size]`` of an action at each step of a window."""


@final
@dataclasses.dataclass(frozen=True)
class SoftCritic:
    """A Q function and its temperature, in the unit of the window's rewards."""

    q_value: StateActionValue
    temperature: float = 0.0
    """``alpha``."""
    entropy_target: float = 0.0
    """``h``, in nats."""

    @classmethod
    def of(cls, critic: CriticView) -> Self:
        """An agent's critic in the unit of the environment's rewards."""
        module, scale = critic.module, critic.reward_scale

        def q_value(features: Tensor, action: Tensor) -> Tensor:
            return scale * module.policy_value(features, action)

        return cls(q_value, scale * critic.temperature, critic.entropy_target)

    def value(self, distribution: Distribution, features: Tensor, noise: Tensor) -> Tensor:
        """``Q(s, a) - alpha (log pi(a | s) + h)`` ``[...]`` at this noise's action, with its graph.

        Its expectation over the noise is ``V(s)``.
        """
        return self.at(distribution, features, distribution.pre_action(noise))

    def at(self, distribution: Distribution, features: Tensor, pre_action: Tensor) -> Tensor:
        """``Q(s, a) - alpha (log pi(a | s) + h)`` ``[...]`` at actions before squashing."""
        value = self.q_value(features, distribution.squash(pre_action))
        if self.temperature == 0:
            return value
        log_prob = log_prob_in_box(distribution, pre_action)
        return value - self.temperature * (log_prob + self.entropy_target)

    def baseline(self, distribution: Distribution, features: Tensor, noise: Tensor) -> Tensor:
        """A number near ``V(s)`` ``[...]``: ``Q`` at the policy's mode, and the entropy's worth.

        It does not depend on the window's actions if the noise does not.
        """
        value = self.q_value(features, distribution.mode)
        if self.temperature == 0:
            return value
        return value + self.temperature * (distribution.entropy(noise) - self.entropy_target)


def soft_window(window: Window, policy: Policy, critic: SoftCritic) -> Window:
    """The window with the rewards ``r_k - alpha (log pi(a_k|s_k) + h)``.

    They have the window's graph: a log density depends on the action and, through mean and
    standard deviation, on the state.

    Args:
        window: plain or differentiable.
        policy: the policy that acted.
        critic: gives ``alpha`` and ``h``.
    """
    if critic.temperature == 0:
        return window
    log_prob = log_prob_in_box(policy(window.obs), window.pre_action)
    cost = torch.where(window.valid, log_prob + critic.entropy_target, 0.0)
    return dataclasses.replace(window, reward=window.reward - critic.temperature * cost)


def critic_signals(
    policy: Policy, window: Window, critic: SoftCritic, *, gamma: float, draw_noise: DrawNoise
) -> Signals:
    """The signals of a window for the objective of this module: all its estimates have one mean.

    Args:
        policy: the policy that acted.
        window: differentiable, or plain; then there is no pathwise estimate.
        critic: in the unit of the window's rewards.
        gamma: the discount.
        draw_noise: gives the noise of the action after a segment's end, and that of an entropy in
            the baseline. It must not depend on the window's actions.
    """
    window = soft_window(window, policy, critic)
    bare, at_end, at_baseline = without_normalizer(policy), draw_noise(), draw_noise()
    next_features = policy.normalizer(window.next_obs)
    next_value = critic.value(bare(next_features), next_features, at_end)

    def matched_weight(signals: Signals) -> Tensor:
        with torch.no_grad():
            baseline = critic.baseline(signals.distribution, signals.features, at_baseline)
        return matched_score_weight(signals.window, next_value, baseline, gamma)

    return Signals(
        policy,
        window,
        objective=window_objective(window, next_value, gamma),
        matched_weight=matched_weight,
        q_value=critic.q_value,
        temperature=critic.temperature,
        critic_discount=segment_discount(window.segment_end, gamma),
    )
