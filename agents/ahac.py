"""AHAC: SHAC whose horizon adapts to the growth of the adjoint (Georgiev et al. 2024)."""

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
    ValueEnsembleSettings,
    above,
    at_least,
    at_most,
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
from pgtoolkit.learners.adaptive_horizon import MIN_SAMPLES, AdaptiveHorizon
from pgtoolkit.learners.policy_learner import PolicyLearner
from pgtoolkit.learners.value_learner import ValueLearner, make_value_ensemble
from pgtoolkit.limits import MAX_COUNT, MAX_PASSES
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("collector", "learner", "value", "horizon")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AhacConfig(
    RolloutSettings,
    AdamSettings,
    PathwiseSettings,
    PathwisePolicySettings,
    ValueEnsembleSettings,
    DiagnosticsSettings,
):
    """Adaptive horizon actor-critic: shac whose window is as long as the adjoint allows."""

    num_envs: Annotated[
        int, at_least(MIN_SAMPLES, "the adjoint's growth is a mean over them"), at_most(MAX_COUNT)
    ] = 64
    """Number of parallel environments; each gives one trajectory of a window."""
    n_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 16
    """Steps of each environment in the first window."""
    horizon_min: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 8
    """Fewest steps of each environment in a later window."""
    horizon_max: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 64
    """Most steps of each environment in a later window."""
    amplification_bound: Annotated[float, above(1)] = 3.0
    """Largest root mean square of the adjoint dJ/du of a window's first step, in units of that of
    its last step, with the discount taken out. A window grows until that is reached."""
    dual_rate: Annotated[float, at_least(0)] = 0.1
    """Step of the dual variables for a violation by a factor of e."""
    horizon_rate: Annotated[float, at_least(0)] = 1.0
    """Steps by which a window grows in an update where no bound is reached; 0 keeps n_steps, within
    the two limits."""
    gamma: Annotated[float, between(0, 1)] = 0.98
    """Discount factor."""
    learning_rate: Annotated[float, above(0)] = 5e-3
    """Adam's learning rate for the policy."""
    vf_learning_rate: Annotated[float, above(0)] = 5e-3
    """Adam's learning rate for the value functions; it follows the policy's schedule."""
    vf_epochs: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 16
    """Most passes of the value functions over each window."""
    vf_tolerance: Annotated[float, at_least(0)] = 0.05
    """Mean relative change of the loss between the last five passes at which a fit counts as
    converged and ends; 0 makes all passes."""
    adam_betas: Annotated[tuple[float, float], each(below(0, 1))] = (0.7, 0.95)
    """Decay rates of Adam's two moments."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_mixable(self)
        low, high = self.horizon_min, self.horizon_max
        self.require("horizon_max", low <= high, f"at least horizon_min, {low}")


@final
class Ahac:
    """Increases ``J = sum_k gamma^k r_k + gamma^H V(s_H)`` for the largest ``H`` within a bound.

    The bound is on the growth of ``|dJ/du_t|`` backwards in time, which is measured on every
    window, and dual variables move the horizon of the next one
    (:mod:`~pgtoolkit.learners.adaptive_horizon`). Contact forces, which the published agent
    bounds, are not needed. ``V`` is the least of the value functions, without lag, in ``J`` and in
    the TD(lambda) targets. A fit ends once it has converged.

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
        self, config: AhacConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, AhacConfig)
        self.estimator = followed_estimator(config)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps, gradient=True)
        self.policy, progress = self.collector.make_policy(), self.collector.progress
        self.learner = PolicyLearner.of(config, self.policy, progress, self.collector.reward_unit)
        observation_space, device = self.collector.spaces[0], self.collector.device
        self.value = ValueLearner.of(
            config,
            observation_space,
            progress,
            seed=seed,
            device=device,
            module=make_value_ensemble(config, observation_space, seed=seed),
            tolerance=config.vf_tolerance,
        )
        self.horizon = AdaptiveHorizon(
            config.n_steps,
            config.horizon_min,
            config.horizon_max,
            bound=config.amplification_bound,
            rate=config.dual_rate,
            length_rate=config.horizon_rate,
            device=device,
        )

    def collect(self) -> Window:
        return self.collector.collect(self.policy, self.horizon.steps)

    def update(self, window: Window) -> Metrics:
        gamma, values = self.config.gamma, self.value.lagged
        with self.learner.updating(window):
            window = self.collector.normalized(window)
            next_value = values(self.policy.normalizer(window.next_obs)).amin(0)

            def matched_weight(signals: Signals) -> Tensor:
                baseline = values(signals.features).amin(0)
                return matched_score_weight(signals.window, next_value, baseline, gamma)

            signals = Signals(
                self.policy,
                window,
                objective=window_objective(window, next_value, gamma),
                matched_weight=matched_weight,
            )
            # The length was chosen before the window, so it depends on none of its actions.
            self.learner.divisor = window.num_steps
            metrics = self.learner.step(self.estimator, signals)
            metrics |= self.horizon.step(signals.action_gradient, signals.window, gamma)
            target = window_returns(
                signals.window, next_value.detach(), gamma=gamma, lambda_=self.config.gae_lambda
            )
            metrics |= self.value.fit_window(signals.window, signals.features, target)
            return metrics | self.collector.metrics()

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)
