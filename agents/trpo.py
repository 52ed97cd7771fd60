"""TRPO: the longest natural step that improves within a divergence (Schulman et al. 2015)."""

import dataclasses
from typing import Annotated, Any, ClassVar, final

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.config import (
    DiagnosticsSettings,
    NaturalGradientSettings,
    PolicySettings,
    RolloutSettings,
    above,
    at_least,
    at_most,
    below,
    settings_for,
)
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.estimators.proximal import probability_ratio
from pgtoolkit.estimators.returns import window_returns
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.learners.entropy import EntropyBonus
from pgtoolkit.learners.policy_learner import PolicyLearner
from pgtoolkit.learners.step_rules.trust_region import TrustRegion
from pgtoolkit.learners.value_learner import ValueLearner
from pgtoolkit.limits import MAX_COUNT, MAX_PASSES
from pgtoolkit.policies.factory import DistributionName
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("collector", "learner", "value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrpoConfig(NaturalGradientSettings, RolloutSettings, PolicySettings, DiagnosticsSettings):
    """Trust region policy optimisation: natural steps, shortened until they are safe."""

    num_envs: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 8
    """Number of parallel environments; each gives one trajectory of a window."""
    n_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 256
    """Steps of each environment in a window."""
    line_search_shrink: Annotated[float, above(0), below(0, 1)] = 0.8
    """Factor of a step's length from one trial of the line search to the next."""
    line_search_trials: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 10
    """Most lengths that are tried; if none improves within target_kl, no step is taken."""
    distribution: DistributionName = "clipped_gaussian"
    """Distribution of Box actions: clipped_gaussian (a Gaussian in units of the box, with mean 0 in
    its middle, clipped on its way into the environment); or any other."""


@final
class Trpo:
    """Increases ``sum_t rho_t A_t`` under the bound ``mean KL(old, new) <= target_kl``.

    ``rho = pi(a | s) / pi_old(a | s)``, and ``A`` are generalised advantage estimates. The step is
    a natural one, shortened by a line search.

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
        self, config: TrpoConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, TrpoConfig)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        self.policy, progress = self.collector.make_policy(), self.collector.progress
        rule = TrustRegion(
            target_kl=config.target_kl,
            iterations=config.cg_iterations,
            damping=config.cg_damping,
            shrink=config.line_search_shrink,
            max_trials=config.line_search_trials,
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
            advantage = target - baseline
            signals = Signals(self.policy, window, weight=advantage, features=features)

            def surrogate(distribution: Distribution) -> Tensor:
                log_prob = distribution.log_prob_of_pre_action(window.pre_action)
                gain = probability_ratio(log_prob - window.log_prob) * advantage
                return torch.where(window.valid, gain, 0.0).sum(0)

            metrics = self.learner.step("score_function", signals, surrogate)
            metrics |= self.value.fit_window(window, features, target)
            return metrics | self.collector.metrics()

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)
