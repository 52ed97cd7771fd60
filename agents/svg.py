"""SVG: stochastic value gradients with horizons 0, 1 and infinity (Heess et al. 2015)."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from torch import Tensor

from pgtoolkit.agent import CriticView, Metrics
from pgtoolkit.config import (
    AdamSettings,
    CriticSettings,
    DiagnosticsSettings,
    PolicySettings,
    ProbeSettings,
    RelativeEntropySettings,
    RolloutSettings,
    above,
    at_least,
    at_most,
    between,
    each,
    settings_for,
)
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.envs.adapters.learned.model import ModelConfig
from pgtoolkit.envs.adapters.learned.windows import WindowModel
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.measurement.critic_monitor import STATES, CriticMonitor
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.estimators.surrogates import pathwise_surrogate_of, window_objective
from pgtoolkit.estimators.value_gradient import (
    importance_weight,
    single_steps,
    value_gradient,
    with_inferred_noise,
)
from pgtoolkit.learners.entropy import EntropyBonus
from pgtoolkit.learners.policy_learner import PolicyLearner, describe
from pgtoolkit.learners.q_function import make_q_ensemble
from pgtoolkit.learners.replay_batches import (
    make_replay,
    replay_sentence,
    stored_transitions,
    with_observations,
)
from pgtoolkit.learners.step_rules.adam import Adam
from pgtoolkit.limits import MAX_COUNT, MAX_CRITICS, MAX_LAYER, MAX_PASSES
from pgtoolkit.networks.mlp import Activation
from pgtoolkit.networks.value import Lagged
from pgtoolkit.policies.policy import without_normalizer
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream
from pgtoolkit.state import load_state_of, state_of

Horizon = Literal["0", "1", "infinity"]
STATE = (
    "collector",
    "learner",
    "q",
    "lagged",
    "q_rule",
    "model",
    "replay",
    "generator",
    "critic_monitor",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SvgConfig(
    RolloutSettings,
    AdamSettings,
    RelativeEntropySettings,
    PolicySettings,
    CriticSettings,
    ProbeSettings,
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
    buffer_size: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 100_000
    """Transitions that are kept for the updates; the oldest are overwritten."""
    learning_starts: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 1_000
    """Environment steps before the first update."""
    batch_size: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 128
    """Transitions in a minibatch."""
    replay_ratio: Annotated[float, above(0)] = 0.5
    """Minibatches per environment step."""
    tau: Annotated[float, above(0), at_most(1)] = 0.01
    """Share of the Q functions in each update of their lagged copy, which gives the targets."""
    importance_clip: Annotated[float, above(0)] = 1.0
    """Largest importance weight of a replayed action in the policy's gradient."""
    window_passes: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 8
    """Steps of the policy on each window where the horizon is infinity; the noise is inferred
    again for each."""
    model_hidden: Annotated[
        tuple[int, ...],
        each(at_least(1), "sizes of at least 1"),
        each(at_most(MAX_LAYER), f"sizes of at most {MAX_LAYER:,}"),
    ] = (128, 128)
    """Sizes of the hidden layers of each network of the model."""
    model_ensemble: Annotated[int, at_least(1), at_most(MAX_CRITICS)] = 3
    """Networks of the model, whose mean is followed."""
    model_first_fit_steps: Annotated[int, at_least(0), at_most(MAX_COUNT)] = 1_000
    """Minibatches of the model's first fit."""
    model_fit_steps: Annotated[int, at_least(0), at_most(MAX_COUNT)] = 20
    """Minibatches of the model's fit in each later update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        gaussian = self.distribution in ("gaussian", "clipped_gaussian")
        self.require(
            "distribution", gaussian, "gaussian or clipped_gaussian: the noise is inferred"
        )


@final
class Svg:
    """Climbs a value by its derivative at actions that were taken, with the noise inferred.

    The noise ``eps = (u - mu(s)) / sigma(s)`` is that under which the policy now would have taken
    the stored action ``a``. With ``V(s) = Q(s, a(s, eps'))`` at a fresh action and a learned model
    ``f`` of the next state, the policy's gradient is that of

    - horizon 0: ``w Q(s, a)``, on replayed transitions;
    - horizon 1: ``w (r(s, a) + gamma V(f(s, a)))``, on replayed transitions;
    - infinity: ``sum_k gamma^k r_k + gamma^H V(s_H)``, along the window that was just collected.

    ``w = min(pi(a|s) / pi_old(a|s), importance_clip)`` is the importance weight of a stored action.
    States and rewards are always the real ones, and derivatives the model's. ``Q`` is fitted on
    replayed transitions to ``r + gamma min_j Q_j(s', a(s', eps'))`` with lagged ``Q_j``.

    Args:
        config: settings.
        env: any vector environment of ``config.num_envs`` environments with continuous actions, or
            one environment, an id or a function, of which that many are made.
        seed: determines the weights, the noise, the starts and the minibatches.
        total_steps: planned environment steps, for the learning-rate schedule.

    Raises:
        RequestError: the actions are not continuous, or a model is needed and observations are no
            flat vectors.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: SvgConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 20_000
    ) -> None:
        self.config = settings_for(self, config, SvgConfig)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        device, progress = self.collector.device, self.collector.progress
        self.q = make_q_ensemble(config, self.collector.spaces, seed=seed).to(device)
        self.lagged = Lagged(self.q, config.tau)
        self.q_rule = Adam.of(config, self.q, progress, learning_rate=config.q_learning_rate)
        self.policy = self.collector.make_policy()
        self.learner = PolicyLearner.of(config, self.policy, progress, self.collector.reward_unit)
        self.unmeasured = PolicyLearner(self.policy, self.learner.rule, GradientMonitor(0))
        self.model = make_model(config, self.collector, seed=seed)
        self.replay = make_replay(
            config.buffer_size, self.collector.spaces, device, extra_numbers=self.extra_numbers
        )
        self.generator = stream(seed, "replay", device)
        self.critic_monitor = CriticMonitor(self.collector, config, self.learner.monitor)

    @property
    def extra_numbers(self) -> int:
        """float32 numbers of a stored transition beyond its five fields.

        Noise, pre-action and density, and where there is a model, its buffers of the same steps.
        """
        kept = self.policy.noise_size + self.policy.action_size + 1
        return kept if self.model is None else kept + self.model.numbers_of_transition

    @property
    def replay_sentence(self) -> str:
        """How much memory the replay buffer takes."""
        size = self.config.buffer_size
        return replay_sentence(size, self.collector.spaces, self.extra_numbers)

    @property
    def critic(self) -> CriticView:
        return CriticView(self.q, reward_scale=float(self.collector.reward_normalizer.scale))

    def collect(self) -> Window:
        return self.collector.collect(self.policy).detach()

    def update(self, window: Window) -> Metrics:
        config, model = self.config, self.model
        with self.learner.updating(window):
            space = self.collector.spaces[0]
            self.replay.add(stored_transitions(window, space, "noise", "pre_action", "log_prob"))
            if model is not None:
                model.add(window)
            if self.replay.added < config.learning_starts:
                return self.collector.metrics()
            metrics = {} if model is None else model.fit()
            num_minibatches = max(1, round(config.replay_ratio * self.collector.window_steps))
            if config.horizon == "infinity":
                passes = self.learners(config.window_passes)
                metrics |= averaged([self.climb(window, learner) for learner in passes])
                metrics |= averaged([self.fit_q(self.draw()) for _ in range(num_minibatches)])
            else:
                found = [self.replayed_step(learner) for learner in self.learners(num_minibatches)]
                metrics |= averaged(found)
            followed = ESTIMATORS[config.horizon]
            measured = self.critic_monitor.measure(self, self.states, followed=followed)
            # The gradient that was followed has the tags that both would have.
            metrics = (measured if model is None else beside_model(measured)) | metrics
            metrics |= describe(self.policy(window.obs), window)
            return metrics | self.collector.metrics()

    def learners(self, count: int) -> list[PolicyLearner]:
        """What takes each of ``count`` steps: the first of an update is measured where due."""
        return [self.learner] + [self.unmeasured] * (count - 1)

    def states(self, generator: torch.Generator) -> Tensor:
        """Replayed observations ``[M, O]``."""
        return self.replay.draw((STATES,), generator).obs

    def draw(self) -> Window:
        """Replayed transitions ``[1, M]``; for a model in float32, in which it computes."""
        drawn = self.replay.draw((self.config.batch_size,), self.generator)
        if self.model is None:
            return single_steps(drawn)
        return single_steps(with_observations(drawn, drawn.reward.dtype))

    def replayed_step(self, learner: PolicyLearner) -> Metrics:
        """One step of Q and one of the policy on the same transitions."""
        steps = self.draw()
        return self.fit_q(steps) | self.climb(steps, learner)

    def fit_q(self, steps: Window) -> Metrics:
        """One step of Q on transitions, towards the rewards and the lagged Q."""
        features, target = self.policy.normalizer(steps.obs), self.target(steps)
        loss = self.q.loss(features, steps.action, target).mean()
        self.q.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self.q_rule.step(self.q)["train/gradient_norm"]
        self.lagged.update()
        return {"train/critic_loss": loss.detach(), "train/critic_gradient_norm": norm}

    @torch.no_grad()
    def target(self, steps: Window) -> Tensor:
        """``r + gamma min_j Q_j(s', a(s', eps))`` ``[1, M]``, and ``r`` after a terminal step."""
        next_features = self.policy.normalizer(steps.next_obs)
        next_value = self.lagged(next_features, self.fresh_action(next_features)).amin(0)
        next_value = torch.where(steps.terminated, 0.0, next_value)
        return self.collector.normalized(steps).reward + self.config.gamma * next_value

    def climb(self, window: Window, learner: PolicyLearner) -> Metrics:
        """One step of the policy along the value gradient of a window."""
        config, window = self.config, self.collector.normalized(window)
        with torch.no_grad():
            distribution = self.policy(window.obs)
        weight = importance_weight(window, distribution, config.importance_clip).unsqueeze(-1)
        window = with_inferred_noise(window, distribution)
        objective, model = (
            (self.q_objective, None)
            if config.horizon == "0"
            else (self.value_objective, self.predicted)
        )
        gradient = weight * value_gradient(self.policy, window, objective, model)
        bonus = EntropyBonus.of(config).weight(window) or 0.0
        noise = self.policy.draw_noise(*window.reward.shape, generator=self.generator)

        def surrogate(distribution: Distribution) -> Tensor:
            path = pathwise_surrogate_of(distribution, window, gradient)
            entropy = torch.where(window.valid, distribution.entropy(noise), 0.0)
            return (path + bonus * entropy.sum(0)) / window.num_steps

        return learner.step_surrogate(ESTIMATORS[config.horizon], surrogate, window.obs)

    def q_objective(self, window: Window) -> Tensor:
        """``Q(s, a)`` ``[M]`` of single steps."""
        features = self.policy.normalizer(window.obs)
        return self.q.policy_value(features, window.action).squeeze(0)

    def value_objective(self, window: Window) -> Tensor:
        """The discounted reward ``[N]`` of a window, with ``V(s) = Q(s, a(s, eps))`` at its end."""
        features = self.policy.normalizer(window.next_obs)
        value = self.q.policy_value(features, self.fresh_action(features))
        return window_objective(window, value, self.config.gamma)

    def fresh_action(self, features: Tensor) -> Tensor:
        """The policy's action ``[..., A]`` with noise of its own; it carries the graph."""
        noise = self.policy.draw_noise(*features.shape[:2], generator=self.generator)
        return without_normalizer(self.policy)(features).rsample(noise)

    def predicted(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The model's next observation ``[N, O]`` and reward ``[N]``, in the unit of the update."""
        assert self.model is not None
        next_obs, reward = self.model(obs, action)
        return next_obs, reward / float(self.collector.reward_normalizer.scale)

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


ESTIMATORS: dict[Horizon, str] = {"0": "critic", "1": "pathwise", "infinity": "pathwise"}
"""Names of the gradients in the metrics."""


def beside_model(metrics: Metrics) -> Metrics:
    """The measurements of a critic without those of pathwise through the environment.

    Pathwise is through the model here. Comparisons of the exact gradients with one another, whose
    tags name no estimator, would be read as its own; the probe's own tags stay.
    """
    return {
        tag: value
        for tag, value in metrics.items()
        if tag.count("/") > 1 or tag == "gradient/trajectories" or not tag.startswith("gradient/")
        if tag not in ("gradient/by_step/pathwise", "gradient/by_step/mixed")
    }


def make_model(config: SvgConfig, collector: Collector, *, seed: int) -> WindowModel | None:
    """The model of the transitions; None where the horizon needs none."""
    if config.horizon == "0":
        return None
    settings = ModelConfig(
        hidden=config.model_hidden,
        ensemble_size=config.model_ensemble,
        initial_fit_steps=config.model_first_fit_steps,
        fit_steps=config.model_fit_steps,
        capacity=max(config.buffer_size, 10),
    )
    return WindowModel(settings, collector.spaces, config.num_envs, seed=seed)


def averaged(found: Sequence[Metrics]) -> Metrics:
    """The mean of each metric over those that have it."""
    tags = dict.fromkeys(tag for metrics in found for tag in metrics)
    return {tag: torch.stack([m[tag] for m in found if tag in m]).mean(0) for tag in tags}
