"""NPG: a step of fixed divergence along the natural gradient (Kakade 2001)."""

import dataclasses
from typing import Annotated, Any, ClassVar, final

import torch

from pgtoolkit.agent import Metrics
from pgtoolkit.config import (
    DiagnosticsSettings,
    NaturalGradientSettings,
    PolicySettings,
    RolloutSettings,
    at_least,
    at_most,
    settings_for,
)
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.estimators.returns import window_returns
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.learners.entropy import EntropyBonus
from pgtoolkit.learners.policy_learner import PolicyLearner
from pgtoolkit.learners.step_rules.natural_gradient import NaturalGradient
from pgtoolkit.learners.value_learner import ValueLearner
from pgtoolkit.limits import MAX_COUNT
from pgtoolkit.policies.factory import DistributionName
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("collector", "learner", "value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NpgConfig(NaturalGradientSettings, RolloutSettings, PolicySettings, DiagnosticsSettings):
    """Natural policy gradient: steps whose length is a divergence."""

    num_envs: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 8
    """Number of parallel environments; each gives one trajectory of a window."""
    n_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 256
    """Steps of each environment in a window."""
    distribution: DistributionName = "clipped_gaussian"
    """Distribution of Box actions: clipped_gaussian (a Gaussian in units of the box, with mean 0 in
    its middle, clipped on its way into the environment); or any other."""


@final
class Npg:
    """Increases ``sum_t A_t log pi(a_t | s_t)`` by steps ``sqrt(2 d / g^T F^-1 g) F^-1 g``.

    ``A`` are generalised advantage estimates, ``F`` is the policy's Fisher information, and ``d``
    is ``target_kl``.

    Args:
        config: settings.
        env: any vector environment of ``config.num_envs`` environments, or one
            environment, an id or a function, of which that many are made.
        seed: determines the weights, the noise, the starts and the minibatches.
        total_steps: planned environment steps, for the value function's learning rate.

    Raises:
        RequestError: the settings are those of another agent; no policy fits the spaces.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: NpgConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, NpgConfig)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        self.policy, progress = self.collector.make_policy(), self.collector.progress
        rule = NaturalGradient(
            target_kl=config.target_kl,
            iterations=config.cg_iterations,
            damping=config.cg_damping,
        )
        monitor = GradientMonitor(config.diagnostics_interval, unit=self.collector.reward_unit)
        entropy = EntropyBonus.of(config)
        self.learner = PolicyLearner(self.policy, rule, monitor, entropy, config.n_steps)
        observation_space, device = self.collector.spaces[0], self.collector.device
        self.value = ValueLearner.of(config, observation_space, progress, seed=seed, device=device)

    def collect(self) -> Window:
        return self.collector.collect(self.policy).detach()

    def update(self, window: Window) -> Metrics:
        config, value, normalize = self.config, self.value.lagged, self.policy.normalizer
        with self.learner.updating(window):
            window = self.collector.normalized(window)
            features = normalize(window.obs)
            with torch.no_grad():
                baseline, next_value = value(features), value(normalize(window.next_obs))
            target = window_returns(
                window, next_value, gamma=config.gamma, lambda_=config.gae_lambda
            )
            signals = Signals(self.policy, window, weight=target - baseline, features=features)
            metrics = self.learner.step("score_function", signals)
            metrics |= self.value.fit_window(window, features, target)
            return metrics | self.collector.metrics()

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)
