"""The critic's and the score function's gradient on one batch of states, for any agent."""

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.diagnostics.monitor import GradientMonitor, Pair
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.estimators.signals import StateActionValue
from pgtoolkit.estimators.soft_value import SoftCritic
from pgtoolkit.policies.policy import Policy, without_normalizer

GROUP = "gradient/critic_on_states"
"""Group of the tags that compare the two."""
LEAST_STATES, MOST_STATES = 256, 1024
"""Bounds of the number of states that are measured, where the batch has as many."""
MOST_ENTRIES = 2**25
"""Entries of all states' gradients by one estimator, beyond which fewer states are measured."""


def measure_critic(
    policy: Policy,
    features: Tensor,
    noise: Tensor,
    q_value: StateActionValue,
    *,
    monitor: GradientMonitor,
    temperature: float = 0.0,
    followed: str = "critic",
) -> Metrics:
    """Variance, signal and SNR of two estimates of ``d/dtheta E_a[Q(s, a) - alpha log pi(a|s)]``.

    A sample is one state with one action ``a = a(s, eps_0)``, and both estimates use the same ones.

    - *critic*: ``d(Q - alpha log pi)/du du/dtheta``, the slope that the policy climbs;
    - *score function*: ``(Q - alpha log pi - b(s)) dlog pi(a|s)/dtheta``. The baseline ``b(s)`` is
      the mean of ``Q - alpha log pi`` over the other actions of the same state.

    Both are unbiased *for this Q function*: their variances can be compared, and neither says how
    far the Q function is from the true one. That is measured in environments that have a gradient
    (:class:`GradientProbe <pgtoolkit.envs.measurement.gradient_probe.GradientProbe>`).

    In an agent, inside ``learner.updating`` and after its steps, with a batch of states::

        noise = self.policy.draw_noise(4, len(obs), generator=self.measuring)
        metrics |= measure_critic(self.policy, self.policy.normalizer(obs), noise,
                                  self.critic.module.policy_value, monitor=self.learner.monitor,
                                  temperature=self.critic.temperature)

    The noise comes from a generator of its own, ``stream(seed, "measured actions")``, which is
    among the parts that the agent saves: what is measured, and how often, changes no training.

    Args:
        policy: its gradients are measured, and not changed.
        features: normalised observations ``[M, F]``, in random order: of a large batch the first
            256 to 1024 are measured, the fewer the more parameters there are.
        noise: ``[K, M, noise_size]`` of ``K`` actions of each state, at least 2. The first is the
            sample's, the others are the baseline's.
        q_value: the number that the policy climbs.
        monitor: decides whether this update is measured.
        temperature: ``alpha``, in the unit of ``q_value``.
        followed: the estimator that the agent follows; what measures another one says so.

    Raises:
        NonFiniteError: a gradient is not finite.
    """
    count = min(len(features), most_states(policy))
    if not monitor.measures(count):
        return {}
    with monitor.diagnosing():
        features, noise = features[:count].detach(), noise[:, :count]
        bare, critic = without_normalizer(policy), SoftCritic(q_value, temperature)
        pre_action, weight, slope = _signals(bare(features), features, noise, critic)

        def surrogates() -> dict[str, Tensor]:
            distribution = bare(features)
            return {
                "score_function": -distribution.log_derivative_loss(pre_action, weight),
                "critic": (slope * distribution.pre_action(noise[0])).sum(-1),
            }

        found = monitor.measure_all(policy, surrogates)
        if not found:
            return {}
        metrics = monitor.report(found, [Pair(found["score_function"], found["critic"], GROUP)])
        if followed in found:
            metrics[f"gradient/{followed}/followed"] = torch.ones(())
        return metrics


def most_states(policy: Policy) -> int:
    """The number of states whose gradients are held in memory at once."""
    size = sum(parameter.numel() for parameter in policy.parameters())
    return min(max(MOST_ENTRIES // max(size, 1), LEAST_STATES), MOST_STATES)


def _signals(
    distribution: Distribution, features: Tensor, noise: Tensor, critic: SoftCritic
) -> tuple[Tensor, Tensor, Tensor]:
    """The first action before squashing ``[M, A]``, the score function's weight ``[M]``, the slope.

    The slope ``[M, A]`` is that of ``Q - alpha log pi`` at fixed parameters of the policy.
    """
    with torch.no_grad():
        others = torch.stack([critic.value(distribution, features, eps) for eps in noise[1:]])
        pre_action = distribution.pre_action(noise[0])
    pre_action.requires_grad_()
    with torch.enable_grad():
        value = critic.at(distribution, features, pre_action)
        (slope,) = torch.autograd.grad(value.sum(), pre_action)
    return pre_action.detach(), value.detach() - others.mean(0), slope
