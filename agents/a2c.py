"""A2C: one step on policy and value function together for every window (Mnih et al. 2016)."""

import dataclasses
from typing import Annotated, Any, ClassVar, final

import torch
from torch import nn

from pgtoolkit.agent import Metrics
from pgtoolkit.config import (
    AdamSettings,
    DiagnosticsSettings,
    PolicySettings,
    RolloutSettings,
    Typical,
    above,
    at_least,
    at_most,
    between,
    settings_for,
)
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.estimators.returns import window_returns
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.finite import require_finite_steps
from pgtoolkit.learners.entropy import EntropyBonus
from pgtoolkit.learners.policy_learner import describe
from pgtoolkit.learners.policy_step import backward
from pgtoolkit.learners.step_rules.adam import Adam
from pgtoolkit.learners.value_learner import loss_error, make_value_function
from pgtoolkit.limits import MAX_COUNT
from pgtoolkit.networks.value import explained_variance_metric
from pgtoolkit.policies.factory import DistributionName
from pgtoolkit.policies.policy import without_normalizer
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("collector", "modules", "rule", "monitor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class A2cConfig(RolloutSettings, AdamSettings, PolicySettings, DiagnosticsSettings):
    """Advantage actor-critic: one joint step for every short window."""

    num_envs: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 8
    """Number of parallel environments; each gives one trajectory of a window."""
    n_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 8
    """Steps of each environment in a window."""
    learning_rate: Annotated[float, above(0)] = 1e-3
    """Adam's learning rate for the policy and the value function."""
    max_grad_norm: Annotated[float, above(0)] = 100.0
    """Global norm to which the gradient of policy and value function together is clipped. The value
    function's is by far the longer one where returns are large, and a short clip would scale the
    policy's by it."""
    gae_lambda: Annotated[float, between(0, 1), Typical(0.8, 0.995)] = 0.95
    """Lambda of generalised advantage estimates, and of the value function's targets."""
    vf_coef: Annotated[float, at_least(0), Typical(0.1, 1)] = 0.5
    """Weight of the value function's squared error in the loss."""
    distribution: DistributionName = "clipped_gaussian"
    """Distribution of Box actions: clipped_gaussian (a Gaussian in units of the box, with mean 0 in
    its middle, clipped on its way into the environment); or any other."""


@final
class A2c:
    """Increases ``sum_t A_t log pi(a_t | s_t)`` and fits ``V`` in the same step.

    Args:
        config: settings.
        env: any vector environment of ``config.num_envs`` environments, or one
            environment, an id or a function, of which that many are made.
        seed: determines the weights, the noise and the starts.
        total_steps: planned environment steps, for the learning-rate schedule.

    Raises:
        RequestError: the settings are those of another agent; no policy fits the spaces.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: A2cConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, A2cConfig)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        self.policy = self.collector.make_policy()
        value = make_value_function(config, self.collector.spaces[0], seed=seed)
        self.value_function = value.to(self.collector.device)
        self.modules = nn.ModuleDict({"policy": self.policy, "value": self.value_function})
        progress, learning_rate = self.collector.progress, config.learning_rate
        self.rule = Adam.of(config, self.modules, progress, learning_rate=learning_rate)
        self.monitor = GradientMonitor(config.diagnostics_interval, unit=self.collector.reward_unit)

    def collect(self) -> Window:
        return self.collector.collect(self.policy)

    def update(self, window: Window) -> Metrics:
        config, normalize, valid = self.config, self.policy.normalizer, window.valid
        with self.monitor.updating():
            window = self.collector.normalized(window)
            features, next_features = normalize(window.obs), normalize(window.next_obs)
            value = self.value_function(features)
            with torch.no_grad():
                next_value = self.value_function(next_features)
            target = window_returns(
                window, next_value, gamma=config.gamma, lambda_=config.gae_lambda
            )
            require_finite_steps({"value target": torch.where(valid, target, 0.0)})
            advantage = target - value.detach()
            signals = Signals(self.policy, window, weight=advantage, features=features)
            entropy = EntropyBonus.of(config)
            metrics = backward(
                "score_function",
                signals,
                monitor=self.monitor,
                entropy=entropy,
                divisor=config.n_steps,
            )
            losses = (value - target)[valid].square()
            value_loss = losses.mean()
            if not bool(torch.isfinite(value_loss)):
                raise loss_error(losses.detach(), valid.nonzero())
            self.value_function.zero_grad()
            (config.vf_coef * value_loss).backward()
            metrics |= self.rule.step(self.modules)
            metrics |= describe(without_normalizer(self.policy)(features), window)
            metrics["train/value_loss"] = value_loss.detach()
            metrics |= explained_variance_metric(value.detach()[valid], target[valid])
            metrics["gradient/overhead"] = self.monitor.overhead
            normalize.update(window.obs, valid)
            return metrics | self.collector.metrics()

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)
