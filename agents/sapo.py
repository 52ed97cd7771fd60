"""SAPO, soft analytic policy optimization: SHAC with maximum entropy (Xing et al. 2025)."""

import dataclasses
from typing import Annotated, Any, ClassVar, final

from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.config import (
    AdamSettings,
    DiagnosticsSettings,
    EstimatorSettings,
    PathwiseNetworkSettings,
    RolloutSettings,
    ValueEnsembleSettings,
    above,
    at_least,
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
from pgtoolkit.learners.entropy import EntropyBonus
from pgtoolkit.learners.path_entropy import PathEntropy
from pgtoolkit.learners.policy_learner import PolicyLearner
from pgtoolkit.learners.value_learner import ValueLearner, make_value_ensemble
from pgtoolkit.networks.mlp import Activation, Std
from pgtoolkit.networks.spaces import continuous_size
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("collector", "learner", "value", "entropy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SapoConfig(
    RolloutSettings,
    AdamSettings,
    EstimatorSettings,
    PathwiseNetworkSettings,
    ValueEnsembleSettings,
    DiagnosticsSettings,
):
    """Soft analytic policy optimization: shac whose rewards and values contain the entropy."""

    ent_coef_relative: Annotated[float, above(0)] = 0.03
    """Initial weight alpha of the entropy, in units of the standard deviation of the window's
    rewards: the worth of one nat in every action dimension."""
    ent_coef_learning_rate: Annotated[float, at_least(0)] = 5e-3
    """Adam's learning rate for the logarithm of ent_coef_relative; it follows the policy's
    schedule. 0 keeps it."""
    target_entropy: float | None = None
    """Mean entropy that ent_coef_relative is learned for, in nats, of the Gaussian before
    squashing; default: minus half the number of action dimensions."""
    entropy_in_return: bool = True
    """Whether the rewards that the policy climbs contain the entropy, along the path and
    directly."""
    entropy_in_value: bool = True
    """Whether the targets of the value functions contain the entropy."""
    gamma: Annotated[float, between(0, 1)] = 0.98
    """Discount factor."""
    learning_rate: Annotated[float, above(0)] = 5e-3
    """Adam's learning rate for the policy."""
    vf_learning_rate: Annotated[float, above(0)] = 5e-3
    """Adam's learning rate for the value functions; it follows the policy's schedule."""
    adam_betas: Annotated[tuple[float, float], each(below(0, 1))] = (0.7, 0.95)
    """Decay rates of Adam's two moments."""
    max_grad_norm: Annotated[float, above(0)] = 0.5
    """Global norm to which the policy's gradient is clipped."""
    std: Std = "state_dependent"
    """Standard deviation of the policy: one per dimension (state_independent), or a function of the
    observation whose logarithm a tanh keeps in [-5, 2] (state_dependent) or that is clamped to
    [-20, 2] (state_dependent_clamped). With one per dimension, entropy does not depend on the
    path."""
    activation: Activation = "silu"
    """Activation of the hidden layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_mixable(self)
        gaussian = self.distribution in ("gaussian", "clipped_gaussian", "clipped_tanh")
        self.require(
            "distribution",
            gaussian,
            "gaussian, clipped_gaussian or clipped_tanh: the entropy is exact",
        )


@final
class Sapo:
    """Increases the reward and the entropy of a window through the environment's derivative.

    ``J = sum_k gamma^k (r_k + alpha h(s_k)) + gamma^H V(s_H)``, where ``h(s)`` is the policy's
    exact entropy, shifted so that its target is 0, in units of the standard deviation of the
    rewards (:class:`~pgtoolkit.learners.path_entropy.PathEntropy`). The gradient contains what an
    action does to the entropies of later states, and the direct derivative of each entropy with the
    weight ``alpha gamma^k``. ``V`` is the mean of the value functions in ``J``. They are fitted to
    the TD(lambda) returns of ``r + alpha h``, which bootstrap from the least of them.

    ``V`` is taken at the state after the last step. The published code takes the state before that
    step where policy and value function share an encoder, which is its default.

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
        self, config: SapoConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, SapoConfig)
        self.estimator = followed_estimator(config)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps, gradient=True)
        self.policy, progress = self.collector.make_policy(), self.collector.progress
        (observation_space, action_space), device = self.collector.spaces, self.collector.device
        num_actions = continuous_size(action_space)
        self.entropy = PathEntropy.of(config, num_actions, progress, device=device)
        self.learner = PolicyLearner.of(
            config,
            self.policy,
            progress,
            self.collector.reward_unit,
            entropy=self.entropy if config.entropy_in_return else EntropyBonus(),
        )
        self.value = ValueLearner.of(
            config,
            observation_space,
            progress,
            seed=seed,
            device=device,
            module=make_value_ensemble(config, observation_space, seed=seed),
        )

    def collect(self) -> Window:
        return self.collector.collect(self.policy)

    def update(self, window: Window) -> Metrics:
        config, gamma, values = self.config, self.config.gamma, self.value.lagged
        with self.learner.updating(window):
            window = self.collector.normalized(window)
            next_values = values(self.policy.normalizer(window.next_obs))
            next_value, acted = next_values.mean(0), self.policy(window.obs)
            self.entropy.measure(window)
            soft = self.entropy.soft(window, acted)
            mean_entropy = self.entropy.mean(acted, window)

            def matched_weight(signals: Signals) -> Tensor:
                baseline = values(signals.features).mean(0)
                return matched_score_weight(signals.window, next_value, baseline, gamma)

            climbed = soft if config.entropy_in_return else window
            signals = Signals(
                self.policy,
                climbed,
                objective=window_objective(climbed, next_value, gamma),
                matched_weight=matched_weight,
            )
            metrics = self.learner.step(self.estimator, signals)
            fitted = (soft if config.entropy_in_value else window).detach()
            target = window_returns(
                fitted, next_values.detach().amin(0), gamma=gamma, lambda_=config.gae_lambda
            )
            metrics |= self.value.fit_window(fitted, signals.features, target)
            metrics |= self.entropy.step(mean_entropy)
            return metrics | self.collector.metrics()

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)
