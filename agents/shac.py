"""SHAC: the pathwise gradient of a short window with a terminal value (Xu et al. 2022)."""

import dataclasses
from typing import Annotated, Any, ClassVar, final

from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.config import (
    AdamSettings,
    DiagnosticsSettings,
    PathwisePolicySettings,
    PathwiseSettings,
    RolloutSettings,
    ValueSettings,
    above,
    below,
    between,
    each,
    settings_for,
)
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.estimators.cross_fitting import followed_estimator, require_mixable
from pgtoolkit.estimators.returns import window_returns
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.learners.policy_learner import PolicyLearner
from pgtoolkit.learners.value_learner import ValueLearner
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("collector", "learner", "value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShacConfig(
    RolloutSettings,
    AdamSettings,
    PathwiseSettings,
    PathwisePolicySettings,
    ValueSettings,
    DiagnosticsSettings,
):
    """Short-horizon actor-critic: back-propagation through a window, a value beyond it."""

    gamma: Annotated[float, between(0, 1)] = 0.98
    """Discount factor."""
    learning_rate: Annotated[float, above(0)] = 5e-3
    """Adam's learning rate for the policy."""
    vf_learning_rate: Annotated[float, above(0)] = 5e-3
    """Adam's learning rate for the value function; it follows the policy's schedule."""
    adam_betas: Annotated[tuple[float, float], each(below(0, 1))] = (0.7, 0.95)
    """Decay rates of Adam's two moments."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_mixable(self)


@final
class Shac:
    """Increases ``J = sum_k gamma^k r_k + gamma^H V(s_H)`` through the environment's derivative.

    Args:
        config: settings.
        env: a differentiable vector environment of ``config.num_envs`` environments, or one
            environment, an id or a function, of which that many are made.
        seed: determines the weights, the noise, the starts and the minibatches.
        total_steps: planned environment steps, for the learning-rate schedule.

    Raises:
        RequestError: the environment has no gradient, or no policy fits its spaces.
    """

    needs_gradient: ClassVar[bool] = True

    def __init__(
        self, config: ShacConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, ShacConfig)
        self.estimator = followed_estimator(config)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps, gradient=True)
        self.policy, progress = self.collector.make_policy(), self.collector.progress
        self.learner = PolicyLearner.of(config, self.policy, progress, self.collector.reward_unit)
        observation_space, device = self.collector.spaces[0], self.collector.device
        self.value = ValueLearner.of(config, observation_space, progress, seed=seed, device=device)

    def collect(self) -> Window:
        return self.collector.collect(self.policy)

    def update(self, window: Window) -> Metrics:
        gamma, value = self.config.gamma, self.value.lagged
        with self.learner.updating(window):
            window = self.collector.normalized(window)
            next_value = value(self.policy.normalizer(window.next_obs))

            def matched_weight(signals: Signals) -> Tensor:
                baseline = value(signals.features)
                return matched_score_weight(signals.window, next_value, baseline, gamma)

            signals = Signals(
                self.policy,
                window,
                objective=window_objective(window, next_value, gamma),
                matched_weight=matched_weight,
            )
            metrics = self.learner.step(self.estimator, signals)
            target = window_returns(
                signals.window, next_value.detach(), gamma=gamma, lambda_=self.config.gae_lambda
            )
            metrics |= self.value.fit_window(signals.window, signals.features, target)
            return metrics | self.collector.metrics()

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)
