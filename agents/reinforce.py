"""REINFORCE: the score-function gradient, with any of the usual weights (Williams 1992)."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.config import (
    AdamSettings,
    DiagnosticsSettings,
    PolicySettings,
    RelativeEntropySettings,
    RolloutSettings,
    ValueSettings,
    at_least,
    at_most,
    below,
    each,
    settings_for,
)
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.estimators.baselines import leave_one_out
from pgtoolkit.estimators.returns import segment_discount, segment_returns, window_returns
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.learners.policy_learner import PolicyLearner
from pgtoolkit.learners.value_learner import ValueLearner
from pgtoolkit.limits import MAX_COUNT
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("collector", "learner", "value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReinforceConfig(
    RolloutSettings,
    AdamSettings,
    RelativeEntropySettings,
    PolicySettings,
    ValueSettings,
    DiagnosticsSettings,
):
    """Score-function policy gradient on any environment."""

    num_envs: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 16
    """Number of parallel environments; each gives one trajectory of a window."""
    adam_betas: Annotated[tuple[float, float], each(below(0, 1))] = (0.7, 0.95)
    """Decay rates of Adam's two moments. A long memory of early, large gradients would stop the
    learning once returns are high and gradients small."""
    log_std_init: float = -1.0
    """Initial logarithm of the standard deviation, before squashing."""
    n_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 64
    """Steps of each environment in a window. The gradient is divided by this number, with whole
    episodes too: their own length depends on the actions, and would bias the gradient."""
    rollout: Literal["windows", "episodes"] = "windows"
    """windows: n_steps of every environment, bootstrapped with the value function at their end;
    episodes: one whole episode of every environment, from a reset (steps that the faster ones take
    beyond their episode are discarded and not counted)."""
    baseline: Literal["none", "leave_one_out", "value"] = "value"
    """Number that is subtracted from the return: none, the mean of the other trajectories at the
    same step, or the learned value."""
    advantage: Literal["return", "reward_to_go", "gae"] = "gae"
    """return: of the whole segment, discounted from its start, so step k has the weight gamma^k;
    reward_to_go: from the step on; gae: the same with lambda (it needs the baseline value)."""
    discounted_score: bool = False
    """Weigh step k of a segment by gamma^k, as the gradient of the discounted objective has it.
    Most implementations leave it out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.advantage != "gae" or self.baseline == "value"
        self.require("advantage", fits, "return or reward_to_go unless --baseline is value")
        fits = not (self.discounted_score and self.advantage == "return")
        self.require(
            "discounted_score", fits, "off with --advantage return, which discounts already"
        )


@final
class Reinforce:
    """Increases ``sum_t w_t log pi(a_t | s_t)``, ``w_t`` a return less a baseline.

    On windows of a differentiable environment the pathwise gradient of the same trajectories is
    measured beside it.

    Args:
        config: settings.
        env: any vector environment of ``config.num_envs`` environments, or one
            environment, an id or a function, of which that many are made.
        seed: determines the weights, the noise, the starts and the minibatches.
        total_steps: planned environment steps, for the learning-rate schedule.

    Raises:
        RequestError: the settings are those of another agent; no policy fits the spaces.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self,
        config: ReinforceConfig,
        env: EnvArgument,
        *,
        seed: int = 0,
        total_steps: int = 500_000,
    ) -> None:
        self.config = settings_for(self, config, ReinforceConfig)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        self.policy, progress = self.collector.make_policy(), self.collector.progress
        self.learner = PolicyLearner.of(config, self.policy, progress, self.collector.reward_unit)
        observation_space, device = self.collector.spaces[0], self.collector.device
        self.value = ValueLearner.of(config, observation_space, progress, seed=seed, device=device)

    def collect(self) -> Window:
        if self.config.rollout == "episodes":
            return self.collector.collect_episodes(self.policy)
        # With the graph where the pathwise gradient is to be measured on the same trajectories.
        graph = self.learner.monitor.due and self.collector.can_differentiate
        return self.collector.collect(self.policy, graph=graph)

    def update(self, window: Window) -> Metrics:
        gamma, value = self.config.gamma, self.value.lagged
        with self.learner.updating(window):
            window = self.collector.normalized(window)
            features, plain = self.policy.normalizer(window.obs.detach()), window.detach()
            next_value = value(self.policy.normalizer(window.next_obs))
            objective = window_objective(window, next_value, gamma)
            baseline, next_value = value(features), next_value.detach()
            target = self.returns(plain, next_value, self.config.gae_lambda)
            signals = Signals(
                self.policy,
                window,
                objective=objective,
                matched_weight=lambda _: matched_score_weight(plain, next_value, baseline, gamma),
                weight=self.weight(plain, baseline, next_value, target),
                features=features,
            )
            metrics = self.learner.step("score_function", signals)
            metrics |= self.value.fit_window(plain, features, target)
            return metrics | self.collector.metrics()

    def weight(self, window: Window, value: Tensor, next_value: Tensor, target: Tensor) -> Tensor:
        """The weight of ``log pi`` at every step ``[T, N]``."""
        returns = target
        if self.config.advantage != "gae":
            returns = self.returns(window, next_value, 1.0)
        if self.config.advantage == "return":
            returns = segment_returns(returns, window.segment_end)
        baseline = {
            "none": lambda: torch.zeros_like(returns),
            "leave_one_out": lambda: leave_one_out(returns, window.valid),
            "value": lambda: value,
        }[self.config.baseline]()
        weight = returns - baseline
        if self.config.discounted_score:
            discount = segment_discount(window.segment_end, self.config.gamma)
            weight = weight * discount.to(weight)
        return weight

    def returns(self, window: Window, next_value: Tensor, lambda_: float) -> Tensor:
        """TD(lambda) returns ``[T, N]``; GAE is these less the value."""
        return window_returns(window, next_value, gamma=self.config.gamma, lambda_=lambda_)

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)
