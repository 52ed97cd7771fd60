"""SVG: stochastic value gradients with horizons 0, 1 and infinity (Heess et al. 2015)."""

import dataclasses
import functools
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from torch import Tensor

from pgtoolkit.agent import CriticView, Metrics
from pgtoolkit.config import (
    AdamSettings,
    CriticSettings,
    DiagnosticsSettings,
    PolicySettings,
    RelativeEntropySettings,
    RolloutSettings,
    above,
    at_least,
    at_most,
    between,
)
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.envs.adapters.learned.model import ModelConfig
from pgtoolkit.envs.adapters.learned.windows import WindowModel
from pgtoolkit.envs.collector import Collector
from pgtoolkit.estimators.surrogates import pathwise_surrogate_of, window_objective
from pgtoolkit.estimators.value_gradient import (
    importance_weight,
    single_steps,
    value_gradient,
    with_inferred_noise,
)
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.learners.entropy import EntropyBonus
from pgtoolkit.learners.policy_learner import PolicyLearner, describe
from pgtoolkit.learners.q_function import make_q_ensemble
from pgtoolkit.learners.step_rules.adam import Adam
from pgtoolkit.limits import MAX_COUNT, MAX_PASSES
from pgtoolkit.networks.mlp import Activation
from pgtoolkit.networks.value import Lagged
from pgtoolkit.policies.policy import without_normalizer
from pgtoolkit.rollouts.replay import ReplayBuffer
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream
from pgtoolkit.state import load_state_of, state_of

Horizon = Literal["0", "1", "infinity"]
STATE = ("collector", "learner", "q", "lagged", "q_rule", "model", "buffer", "generator")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SvgConfig(
    RolloutSettings,
    AdamSettings,
    RelativeEntropySettings,
    PolicySettings,
    CriticSettings,
    DiagnosticsSettings,
):
    """Stochastic value gradients: through a learned Q, one step of a learned model, or many."""

    horizon: Horizon = "1"
    """Steps of the learned model that the gradient passes through. 0: none, the slope of Q at
    replayed actions; 1: one from replayed states, then the value; infinity: all steps of the
    window that was just collected, then the value."""
    num_envs: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 4
    """Number of parallel environments; each gives one trajectory of a window."""
    n_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 16
    """Steps of each environment in a window."""
    ent_coef_relative: Annotated[float, at_least(0)] = 0.05
    """Weight of the entropy of the squashed action, in units of the standard deviation of the
    rewards. Without it a policy leans against a bound, where tanh is flat and the gradient
    vanishes."""
    gamma: Annotated[float, between(0, 1)] = 0.98
    """Discount factor."""
    learning_rate: Annotated[float, above(0)] = 1e-3
    """Adam's learning rate for the policy."""
    q_learning_rate: Annotated[float, above(0)] = 1e-3
    """Adam's learning rate for the Q functions; it follows the policy's schedule."""
    max_grad_norm: Annotated[float, above(0)] = 10.0
    """Global norm to which the gradient of the policy, and that of the Q functions, is clipped."""
    activation: Activation = "silu"
    """Activation of the hidden layers."""
    num_critics: Annotated[int, at_least(1), at_most(10)] = 2
    """Number of Q functions, with weights of their own."""
    buffer_size: Annotated[int, at_least(1), at_most(10**9)] = 100_000
    """Transitions that are kept for the updates; the oldest are overwritten."""
    learning_starts: Annotated[int, at_least(1)] = 1_000
    """Environment steps before the first update."""
    batch_size: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 256
    """Transitions in a minibatch."""
    replay_ratio: Annotated[float, above(0)] = 1.0
    """Minibatches per environment step."""
    tau: Annotated[float, above(0), at_most(1)] = 0.01
    """Share of the Q functions in each update of their lagged copy, which gives the targets."""
    importance_clip: Annotated[float, above(0)] = 1.0
    """Largest importance weight of a replayed action in the policy's gradient."""
    window_passes: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 8
    """Steps of the policy on each window where the horizon is infinity; the noise is inferred
    again for each."""
    model_hidden: tuple[int, ...] = (128, 128)
    """Sizes of the hidden layers of each network of the model."""
    model_ensemble: Annotated[int, at_least(1), at_most(100)] = 3
    """Networks of the model, whose mean is followed."""
    model_fit_steps: Annotated[int, at_least(1)] = 40
    """Minibatches of the model's fit in each update; the first fit has 50 times as many."""


@final
class Svg:
    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: SvgConfig, env: AnyVectorEnv, *, seed: int = 0, total_steps: int = 20_000
    ) -> None:
        self.config = config
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        device, progress = self.collector.device, self.collector.progress
        self.q = make_q_ensemble(config, self.collector.spaces, seed=seed).to(device)
        self.lagged = Lagged(self.q, config.tau)
        self.q_rule = Adam.of(config, self.q, progress, learning_rate=config.q_learning_rate)
        self.policy = self.collector.make_policy()
        self.learner = PolicyLearner.of(config, self.policy, progress)
        self.unmeasured = PolicyLearner(self.policy, self.learner.rule, GradientMonitor(0))
        self.model = None if config.horizon == "0" else make_model(config, self.collector, seed)
        self.buffer = ReplayBuffer(config.buffer_size, device=device)
        self.generator = stream(seed, "replay", device)

    @property
    def critic(self) -> CriticView:
        return CriticView(self.q, reward_scale=1.0)

    def collect(self) -> Window:
        return self.collector.collect(self.policy).detach()

    def update(self, window: Window) -> Metrics:
        config = self.config
        with self.learner.updating(window):
            window = self.collector.normalized(window)
            self.buffer.add(window.transitions("noise", "pre_action", "log_prob"))
            if self.model is not None:
                self.model.add(window)
            metrics = self.collector.metrics()
            if len(self.buffer) < config.learning_starts:
                return metrics
            if self.model is not None:
                metrics |= self.model.fit()
            learner = self.learner
            if config.horizon == "infinity":
                for _ in range(config.window_passes):
                    metrics |= self.climb(window, learner)
                    learner = self.unmeasured
            count = max(1, round(config.replay_ratio * self.collector.window_steps))
            for _ in range(count):
                batch = self.buffer.draw((config.batch_size,), self.generator)
                metrics |= self.fit_critic(batch)
                if config.horizon != "infinity":
                    metrics |= self.climb(single_steps(batch), learner)
                learner = self.unmeasured
            metrics |= describe(self.policy(window.obs), window)
            return metrics

    def climb(self, window: Window, learner: PolicyLearner) -> Metrics:
        """One step of the policy along the value gradient of a window."""
        config, policy = self.config, self.policy
        with torch.no_grad():
            distribution = policy(window.obs)
        weight = importance_weight(window, distribution, config.importance_clip)
        window = with_inferred_noise(window, distribution)
        objective = functools.partial(OBJECTIVES[config.horizon], self)
        gradient = weight.unsqueeze(-1) * value_gradient(policy, window, objective, self.model)
        noise = policy.draw_noise(*window.reward.shape, generator=self.generator)
        entropy = EntropyBonus.of(config).weight(window) or 0.0

        def surrogate(distribution: Distribution) -> Tensor:
            path = pathwise_surrogate_of(distribution, window, gradient)
            return (path + (entropy * distribution.entropy(noise)).sum(0)) / window.num_steps

        return learner.step_surrogate(NAMES[config.horizon], surrogate, window.obs)

    def value(self, obs: Tensor) -> Tensor:
        """``V(s) = Q(s, a(s, eps))`` ``[...]`` at a fresh action."""
        noise = self.policy.draw_noise(*obs.shape[:-1], generator=self.generator)
        action = self.policy(obs).rsample(noise)
        return self.q.policy_value(self.policy.normalizer(obs), action)

    def fit_critic(self, batch: Transitions) -> Metrics:
        normalize, config = self.policy.normalizer, self.config
        with torch.no_grad():
            noise = self.policy.draw_noise(len(batch.reward), generator=self.generator)
            next_features = normalize(batch.next_obs)
            next_action = without_normalizer(self.policy)(next_features).sample(noise)
            next_value = self.lagged(next_features, next_action).amin(0)
            target = batch.reward + config.gamma * torch.where(batch.terminated, 0.0, next_value)
        loss = self.q.loss(normalize(batch.obs), batch.action, target).mean()
        self.q.zero_grad()
        loss.backward()
        self.q_rule.step(self.q)
        self.lagged.update()
        return {"train/value_loss": loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


def action_value(agent: Svg, window: Window) -> Tensor:
    return agent.q.policy_value(agent.policy.normalizer(window.obs), window.action).sum(0)


def model_value(agent: Svg, window: Window) -> Tensor:
    return window_objective(window, agent.value(window.next_obs), agent.config.gamma)


OBJECTIVES = {"0": action_value, "1": model_value, "infinity": model_value}
NAMES = {"0": "critic", "1": "pathwise", "infinity": "pathwise"}


def make_model(config: SvgConfig, collector: Collector, seed: int) -> WindowModel:
    settings = ModelConfig(
        hidden=config.model_hidden,
        ensemble_size=config.model_ensemble,
        fit_steps=config.model_fit_steps,
        initial_fit_steps=2_000,
    )
    return WindowModel(settings, collector.spaces, config.num_envs, seed=seed)
