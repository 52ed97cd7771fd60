"""RPO: several steps of the policy on the action gradients of one window (arXiv 2508.06214)."""

import dataclasses
from typing import Annotated, Any, ClassVar, final

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.config import (
    AdamSettings,
    DiagnosticsSettings,
    GraphSettings,
    PathwisePolicySettings,
    RelativeEntropySettings,
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
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.distributions.base import Distribution, GaussianParameters
from pgtoolkit.distributions.gaussian import gaussian_kl, gaussian_of
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.estimators.returns import window_returns
from pgtoolkit.estimators.reuse import Reused, reused
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.learners.entropy import reward_std
from pgtoolkit.learners.policy_learner import PolicyLearner, describe
from pgtoolkit.learners.value_learner import ValueLearner, make_value_ensemble
from pgtoolkit.limits import MAX_PASSES
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("collector", "learner", "value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RpoConfig(
    RolloutSettings,
    AdamSettings,
    RelativeEntropySettings,
    GraphSettings,
    PathwisePolicySettings,
    ValueEnsembleSettings,
    DiagnosticsSettings,
):
    """Reparameterisation proximal policy optimisation: shac with several steps on each window."""

    n_epochs: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 5
    """Steps of the policy on each window; the first is that of shac."""
    clip_low: Annotated[float, at_least(0)] = 0.8
    """An action whose probability has fallen below 1 - clip_low times that when it was taken has no
    weight in the later steps."""
    clip_high: Annotated[float, at_least(0)] = 1.0
    """An action whose probability has risen above 1 + clip_high times that when it was taken has no
    weight in the later steps."""
    kl_coef_relative: Annotated[float, at_least(0)] = 0.2
    """Weight of the mean divergence KL(old, new) in the objective, in units of the standard
    deviation of the window's rewards."""
    ent_coef_relative: Annotated[float, at_least(0)] = 0.015
    """Weight of the entropy of the squashed action, in units of the standard deviation of the
    window's rewards."""
    gamma: Annotated[float, between(0, 1)] = 0.98
    """Discount factor."""
    learning_rate: Annotated[float, above(0)] = 2e-3
    """Adam's learning rate for the policy."""
    vf_learning_rate: Annotated[float, above(0)] = 5e-3
    """Adam's learning rate for the value functions; it follows the policy's schedule."""
    vf_target_keep: Annotated[float, below(0, 1)] = 0.2
    """Share of the old target value functions that each update keeps; 0 means no lag."""
    adam_betas: Annotated[tuple[float, float], each(below(0, 1))] = (0.7, 0.95)
    """Decay rates of Adam's two moments."""

    def __post_init__(self) -> None:
        super().__post_init__()
        gaussian = self.distribution in ("gaussian", "clipped_gaussian", "clipped_tanh")
        self.require(
            "distribution",
            gaussian,
            "gaussian, clipped_gaussian or clipped_tanh: the noise is inferred",
        )


@final
class Rpo:
    """Increases ``J = sum_k gamma^k r_k + gamma^H V(s_H)`` in several steps on one window.

    The first step is that of shac, along the pathwise gradient. It caches the action gradients
    ``dJ/du_t``. Each later step reuses them at the policy as it then is, with the noise inferred
    and with importance weights (:mod:`~pgtoolkit.estimators.reuse`), and needs no environment. A
    penalty on ``KL(old, new)`` keeps the policy near the one that acted. ``V`` is the least of the
    value functions.

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
        self, config: RpoConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, RpoConfig)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps, gradient=True)
        self.policy, progress = self.collector.make_policy(), self.collector.progress
        self.learner = PolicyLearner.of(config, self.policy, progress, self.collector.reward_unit)
        self.unmeasured = PolicyLearner(self.policy, self.learner.rule, GradientMonitor(0))
        observation_space, device = self.collector.spaces[0], self.collector.device
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
            old = acted_by(self.policy, signals.window)
            metrics = self.learner.step("pathwise", signals)
            metrics |= self.reuse(signals, old)
            target = window_returns(
                signals.window, next_value.detach(), gamma=gamma, lambda_=self.config.gae_lambda
            )
            metrics |= self.value.fit_window(signals.window, signals.features, target)
            return metrics | self.collector.metrics()

    def reuse(self, signals: Signals, old: GaussianParameters) -> Metrics:
        """The steps after the first on a window's action gradients.

        Args:
            signals: their action gradient has been computed.
            old: of the policy that acted, at the window's observations.
        """
        config, window, clipped = self.config, signals.window, []
        for _ in range(config.n_epochs - 1):
            with torch.no_grad():
                now = self.policy(window.obs)
            part = reused(
                window,
                now,
                signals.action_gradient,
                clip_low=config.clip_low,
                clip_high=config.clip_high,
            )
            clipped.append((~part.inside)[window.valid].float().mean())

            def surrogate(distribution: Distribution, part: Reused = part) -> Tensor:
                near = self.near(distribution, window, old)
                return (part.surrogate(distribution) + near) / config.n_steps

            self.unmeasured.step_surrogate("pathwise", surrogate, window.obs)
        distribution = self.policy(window.obs)
        kl = gaussian_kl(old, gaussian_of(distribution)).detach()[window.valid].mean()
        shares = {"train/clip_fraction": torch.stack(clipped).mean()} if clipped else {}
        return describe(distribution, window) | {"train/kl": kl} | shares

    def near(self, distribution: Distribution, window: Window, old: GaussianParameters) -> Tensor:
        """The entropy bonus minus the weighed divergence from the policy that acted, ``[N]``."""
        divergence = gaussian_kl(old, gaussian_of(distribution))
        weight = self.config.kl_coef_relative * reward_std(window)
        penalty = weight * torch.where(window.valid, divergence, 0.0).sum(0)
        return self.learner.entropy.bonus(distribution, window) - penalty

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


@torch.no_grad()
def acted_by(policy: Policy, window: Window) -> GaussianParameters:
    """Mean and log standard deviation ``[T, N, A]`` of the policy that acted, as constants.

    They are copies: a standard deviation may be a parameter, which the steps change in place.
    """
    mean, log_std = gaussian_of(policy(window.obs))
    return GaussianParameters(mean.clone(), log_std.clone())
