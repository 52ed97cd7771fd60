"""APG, analytic policy gradient: the pathwise gradient of a window (Freeman et al. 2021)."""

import dataclasses
from typing import Annotated, Any, ClassVar, final

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.config import (
    AdamSettings,
    DiagnosticsSettings,
    PathwisePolicySettings,
    PathwiseSettings,
    RolloutSettings,
    above,
    below,
    each,
    settings_for,
)
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.estimators.cross_fitting import (
    followed_estimator,
    leave_one_out_by_fold,
    require_mixable,
)
from pgtoolkit.estimators.returns import window_returns
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.learners.policy_learner import PolicyLearner
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("collector", "learner")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApgConfig(
    RolloutSettings,
    AdamSettings,
    PathwiseSettings,
    PathwisePolicySettings,
    DiagnosticsSettings,
):
    """Back-propagation through the environment over a window, and nothing beyond the window."""

    learning_rate: Annotated[float, above(0)] = 5e-3
    """Adam's learning rate for the policy."""
    adam_betas: Annotated[tuple[float, float], each(below(0, 1))] = (0.7, 0.95)
    """Decay rates of Adam's two moments."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_mixable(self)


@final
class Apg:
    """Increases ``J = sum_k gamma^k r_k`` of a window by its derivative through the environment.

    Rewards after the window do not count, so ``n_steps`` is how far the policy plans.

    Args:
        config: settings.
        env: a differentiable vector environment of ``config.num_envs`` environments, or one
            environment, an id or a function, of which that many are made.
        seed: determines the weights, the noise and the starts.
        total_steps: planned environment steps, for the learning-rate schedule.

    Raises:
        RequestError: the environment has no gradient, or no policy fits its spaces.
    """

    needs_gradient: ClassVar[bool] = True

    def __init__(
        self, config: ApgConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, ApgConfig)
        self.estimator = followed_estimator(config)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps, gradient=True)
        self.policy = self.collector.make_policy()
        self.learner = PolicyLearner.of(
            config, self.policy, self.collector.progress, self.collector.reward_unit
        )

    def collect(self) -> Window:
        return self.collector.collect(self.policy)

    def update(self, window: Window) -> Metrics:
        gamma, no_value = self.config.gamma, torch.zeros_like(window.log_prob)

        def matched_weight(signals: Signals) -> Tensor:
            returns = window_returns(signals.window, no_value, gamma=gamma, lambda_=1.0)
            baseline = leave_one_out_by_fold(returns, signals.window.valid)
            return matched_score_weight(signals.window, no_value, baseline, gamma)

        with self.learner.updating(window):
            window = self.collector.normalized(window)
            objective = window_objective(window, no_value, gamma)
            signals = Signals(
                self.policy, window, objective=objective, matched_weight=matched_weight
            )
            return self.learner.step(self.estimator, signals) | self.collector.metrics()

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)
