"""The policy with its step rule and its gradient monitor."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Self, final

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.diagnostics.monitor import GradientMonitor, one
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.clipped import ClippedGaussian
from pgtoolkit.distributions.squashed import Squashed, TanhGaussian
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.proximal import approximate_kl
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.learners.entropy import Bonus, EntropyBonus
from pgtoolkit.learners.policy_step import backward
from pgtoolkit.learners.step_rules.adam import Adam, Progress
from pgtoolkit.learners.step_rules.base import Problem, StepRule
from pgtoolkit.policies.policy import Policy, without_normalizer
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

SATURATED = 0.99
"""``|tanh(u)|`` from which an action counts as saturated: there its slope is below 0.02."""
STATE = ("policy", "rule", "monitor")


@final
class PolicyLearner:
    """Follows an estimator of the policy's gradient, one step of its rule an update.

    What is followed (an estimator) and how the step is taken (a rule) are independent: every pair
    of them works.

    Args:
        policy: changed in place.
        rule: takes the steps.
        monitor: measures the gradients, when that is due.
        entropy: the entropy bonus in the objective.
        divisor: the constant by which surrogates are divided, such as the configured number of
            steps of a window. It must not depend on the window (:func:`backward
            <pgtoolkit.learners.policy_step.backward>`).
    """

    def __init__(
        self,
        policy: Policy,
        rule: StepRule,
        monitor: GradientMonitor,
        entropy: Bonus | None = None,
        divisor: float = 1.0,
    ) -> None:
        self.policy, self.rule, self.monitor = policy, rule, monitor
        self.entropy: Bonus = EntropyBonus() if entropy is None else entropy
        self.divisor = divisor

    @classmethod
    def of(
        cls,
        config: Any,
        policy: Policy,
        progress: Progress,
        unit: Callable[[], float] = one,
        *,
        entropy: Bonus | None = None,
    ) -> Self:
        """Adam with the settings of an agent's configuration.

        Args:
            config: has the rollout, Adam, policy and diagnostics groups of settings. Surrogates
                are divided by its ``n_steps``.
            policy: changed in place.
            progress: gives the share of the run that is done, for the learning rate.
            unit: gives what 1 of the update's rewards is in the environment's.
            entropy: the entropy bonus in the objective; by default that of the settings.
        """
        rule = Adam.of(config, policy, progress, learning_rate=config.learning_rate)
        monitor = GradientMonitor(config.diagnostics_interval, unit=unit)
        bonus = EntropyBonus.of(config) if entropy is None else entropy
        return cls(policy, rule, monitor, bonus, config.n_steps)

    @contextlib.contextmanager
    def updating(self, window: Window) -> Iterator[None]:
        """Wraps one whole update: times it, and lets the normaliser see the window at its end."""
        with self.monitor.updating():
            yield
            self.policy.normalizer.update(window.obs.detach(), window.valid)

    def step(
        self,
        name: str,
        signals: Signals,
        objective: Callable[[Distribution], Tensor] | None = None,
    ) -> Metrics:
        """Makes one step along an estimator's gradient on a window.

        Args:
            name: the estimator's name in the catalogue.
            signals: the window, its objective and the numbers computed from them.
            objective: what a rule that searches along its step increases, ``[N]`` of a
                distribution at the window's observations, with that gradient at the present policy;
                the estimator's own surrogate by default.

        Raises:
            NonFiniteError: names the tensor, the step and the environment; nothing is changed.
            RequestError: the estimator is not available for this policy and window.
        """
        metrics = backward(
            name, signals, monitor=self.monitor, entropy=self.entropy, divisor=self.divisor
        )
        bare, window = without_normalizer(self.policy), signals.window
        increased = objective or functools.partial(CATALOGUE[name].surrogate, signals)

        def surrogate(distribution: Distribution) -> Tensor:
            bonus = self.entropy.bonus(distribution, window)
            return (increased(distribution) + bonus) / self.divisor

        problem = Problem(bare, signals.features, surrogate, window.valid, window.noise)
        metrics |= self.rule.step(self.policy, problem)
        metrics |= describe(bare(signals.features), window)
        return metrics | {"gradient/overhead": self.monitor.overhead}

    def step_surrogate(
        self, name: str, surrogate: Callable[[Distribution], Tensor], obs: Tensor
    ) -> Metrics:
        """Makes one step on a batch that is no window: off-policy, or with any other loss.

        Args:
            name: the gradient's name in the metrics, ``gradient/{name}/...``.
            surrogate: maps the policy's distribution at ``obs`` to the surrogate ``[M]``, whose
                mean the step increases.
            obs: the observations ``[M, O]``.

        Raises:
            NonFiniteError: the surrogate or a gradient is not finite; nothing is changed.
        """
        bare, features = without_normalizer(self.policy), self.policy.normalizer(obs.detach())
        values: list[Tensor] = []

        def term() -> Tensor:
            values.append(surrogate(bare(features)))
            return values[0]

        gradients = self.monitor.backward(self.policy, term)
        metrics = {}
        if gradients:
            metrics = self.monitor.report({name: gradients})
            metrics[f"gradient/{name}/followed"] = torch.ones(())
        metrics["train/policy_gradient_loss"] = -values[0].detach().mean()
        return metrics | self.rule.step(self.policy, Problem(bare, features, surrogate))

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


@torch.no_grad()
def describe(distribution: Distribution, window: Window) -> Metrics:
    """A policy on a window: entropy, standard deviation, actions at bounds, how far it has moved.

    Args:
        distribution: the policy's distribution at the window's observations, after an update.
        window: without a graph.
    """
    valid = window.valid
    log_ratio = (distribution.log_prob_of_pre_action(window.pre_action) - window.log_prob)[valid]
    metrics = {
        "train/entropy_loss": -distribution.entropy(window.noise)[valid].mean(),
        "train/approx_kl": approximate_kl(log_ratio),
    }
    if distribution.gaussian is not None:
        mean, log_std = distribution.gaussian
        metrics["train/std"] = log_std.exp().expand_as(mean)[valid].mean()
    if isinstance(distribution, TanhGaussian | Squashed):
        saturated = torch.tanh(window.pre_action).abs() > SATURATED
        metrics["train/saturated_actions"] = saturated[valid].double().mean()
    if isinstance(distribution, ClippedGaussian):
        drawn = distribution.before_clip(window.pre_action)
        outside = (drawn < distribution.low) | (drawn > distribution.high)
        metrics["train/clipped_actions"] = outside[valid].double().mean()
    return metrics
