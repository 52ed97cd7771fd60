"""SAC: soft actor-critic, the slope of a learned soft Q function (Haarnoja et al. 2018)."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from pgtoolkit.agent import CriticView, Metrics
from pgtoolkit.compiling import choose_compiled
from pgtoolkit.config import (
    AdamSettings,
    CompileSettings,
    CriticSettings,
    DiagnosticsSettings,
    NetworkSettings,
    ProbeSettings,
    Range,
    ReplaySettings,
    Schedule,
    above,
    at_least,
    at_most,
    settings_for,
)
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.distributions.box_units import log_prob_in_box
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.measurement.critic_monitor import STATES, CriticMonitor
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.learners.flat_module import FlatModule, FlatOptimizer
from pgtoolkit.learners.q_function import make_q_ensemble
from pgtoolkit.learners.replay_batches import (
    describe_acting,
    draw_minibatches,
    make_replay,
    mean_reports,
    replay_sentence,
    stored_transitions,
)
from pgtoolkit.learners.scanned_steps import ScannedSteps
from pgtoolkit.learners.step_rules.adam import scheduled
from pgtoolkit.learners.step_rules.flat_adam import AdamState, FlatAdam, adam_step
from pgtoolkit.limits import MAX_COUNT, MAX_CRITICS
from pgtoolkit.networks.mlp import Activation, Std
from pgtoolkit.networks.spaces import continuous_size
from pgtoolkit.networks.value import Lagged
from pgtoolkit.policies.policy import without_normalizer
from pgtoolkit.policies.uniform import uniform_policy
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream
from pgtoolkit.state import load_state_of, state_of

MINIBATCH_SECONDS = 5e-3
"""Seconds that compiled code saves on one minibatch with the default layers; half with 64 units."""
STATE = (
    "collector",
    "policy",
    "q",
    "target",
    "log_alpha",
    "policy_rule",
    "q_rule",
    "alpha_rule",
    "replay",
    "generator",
    "monitor",
    "critic_monitor",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SacConfig(
    ReplaySettings,
    AdamSettings,
    CompileSettings,
    NetworkSettings,
    CriticSettings,
    ProbeSettings,
    DiagnosticsSettings,
):
    """Soft actor-critic: replayed minibatches, two critics, a learned temperature."""

    num_envs: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 1
    """Number of parallel environments."""
    n_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 32
    """Steps of each environment between two updates (train_freq in Stable-Baselines3)."""
    learning_rate: Annotated[float, above(0)] = 3e-4
    """Adam's learning rate for the policy, the critics and the temperature."""
    learning_rate_schedule: Schedule = "constant"
    """linear: falls to a hundredth over the planned total of steps; constant: stays."""
    max_grad_norm: Annotated[float, above(0)] = 1e6
    """Norm to which the policy's and the critics' gradients are clipped, each for itself. By
    default it is so large that nothing is."""
    hidden: tuple[int, ...] = (256, 256)
    """Sizes of the hidden layers of the policy and of the critics."""
    activation: Activation = "relu"
    """Activation of the hidden layers."""
    std: Std = "state_dependent_clamped"
    """Standard deviation of the policy: one per dimension (state_independent), or a function of the
    observation whose logarithm a tanh keeps in [-5, 2] (state_dependent) or that is clamped to
    [-20, 2] (state_dependent_clamped)."""
    normalize_observations: bool = False
    """Normalise observations by their running mean and variance. These are frozen inside a window
    and saved with the policy."""
    num_critics: Annotated[int, at_least(1), at_most(MAX_CRITICS)] = 2
    """Number of Q functions; targets and policy use the least of them."""
    ent_coef: Annotated[
        float | Literal["auto"],
        Range("auto or a number of at least 0", lambda x: x == "auto" or float(x) >= 0),
    ] = "auto"
    """Temperature: the weight of the policy's entropy, in the unit of the rewards that the update
    sees. auto learns it, so that the entropy stays near target_entropy."""
    target_entropy: float | None = None
    """Mean entropy that ent_coef auto aims at, in nats, of the action in units of its box, in which
    the bounds are -1 and 1; default: minus the number of action dimensions."""


@final
class SacState(NamedTuple):
    """All that a gradient step changes."""

    policy: AdamState
    q: AdamState
    alpha: AdamState
    """Of ``log alpha``, one number."""
    target: Tensor
    """The parameters of the target critics."""


@final
class SacBatch(NamedTuple):
    """Minibatches ``[K, B]`` of transitions, and the noise of the actions that are drawn anew."""

    features: Tensor
    """Observations after the policy's normaliser."""
    action: Tensor
    reward: Tensor
    next_features: Tensor
    alive: Tensor
    """0 where the step reached a terminal state, else 1; also where a time limit cut it off."""
    noise: Tensor
    next_noise: Tensor


@final
class Sac:
    """Increases ``E[min_j Q_j(s, a) - alpha log pi(a | s)]`` over replayed states, ``a ~ pi``.

    The critics are fitted to ``r + gamma (min_j Q'_j(s', a') - alpha log pi(a' | s'))`` with
    ``a' ~ pi`` and target critics ``Q'``; at a terminal state nothing follows, no entropy either.
    The temperature ``alpha`` rises while the entropy is below its target. Densities are those of
    the action in units of its box (:func:`log_prob_in_box
    <pgtoolkit.distributions.box_units.log_prob_in_box>`).

    Args:
        config: settings.
        env: any vector environment of ``config.num_envs`` environments with a box of actions, or
            one environment, an id or a function, of which that many are made.
        seed: determines the weights, the noise, the starts and the minibatches.
        total_steps: planned environment steps, for the learning-rate schedule.

    Raises:
        RequestError: the settings are those of another agent; no policy fits the spaces, or actions
            are discrete.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: SacConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, SacConfig)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        self.num_actions = continuous_size(self.collector.spaces[1])
        device = self.collector.device
        self.policy = self.collector.make_policy()
        self.random_policy = uniform_policy(self.policy)
        self.q = make_q_ensemble(config, self.collector.spaces, seed=seed).to(device)
        self.target = Lagged(self.q, config.tau)
        self.log_alpha = nn.ParameterList([torch.zeros(1, device=device)])
        self.policy_rule = FlatOptimizer(without_normalizer(self.policy))
        self.q_rule, self.alpha_rule = FlatOptimizer(self.q), FlatOptimizer(self.log_alpha)
        self.target_q = FlatModule(self.target.copy)
        self.rule = FlatAdam(
            betas=config.adam_betas, epsilon=1e-8, max_grad_norm=config.max_grad_norm
        )
        self.replay = make_replay(config.buffer_size, self.collector.spaces, device)
        self.generator = stream(seed, "minibatches", device)
        self.monitor = GradientMonitor(config.diagnostics_interval, unit=self.collector.reward_unit)
        self.critic_monitor = CriticMonitor(self.collector, config, self.monitor)
        num_updates = total_steps / (config.num_envs * config.n_steps)
        saved = MINIBATCH_SECONDS * num_updates * config.num_minibatches
        self.steps = ScannedSteps(
            self.step, compiled=choose_compiled(config.compile, saved, device)
        )

    @property
    def alpha(self) -> Tensor:
        """The temperature, a scalar."""
        if self.config.ent_coef == "auto":
            return self.alpha_rule.parameters[0].detach().exp().squeeze()
        return torch.tensor(float(self.config.ent_coef))

    @property
    def replay_sentence(self) -> str:
        """How much memory the replay buffer takes."""
        return replay_sentence(self.config.buffer_size, self.collector.spaces)

    @property
    def critic(self) -> CriticView:
        """The Q functions, with the temperature of their soft values."""
        scale = float(self.collector.reward_normalizer.scale)
        return CriticView(self.q, temperature=float(self.alpha), reward_scale=scale)

    def collect(self) -> Window:
        if self.collector.num_steps < self.config.learning_starts:
            return self.collector.collect(self.random_policy, graph=False)
        return self.collector.collect(self.policy).detach()

    def update(self, window: Window) -> Metrics:
        metrics, collector = dict[str, Tensor](), self.collector
        with self.monitor.updating():
            self.replay.add(stored_transitions(window, collector.spaces[0]))
            if collector.num_steps > self.config.learning_starts:
                metrics |= self.learn()
                metrics |= self.critic_monitor.measure(self, self.states, followed="critic")
                metrics["gradient/overhead"] = self.monitor.overhead
            if collector.num_steps - collector.window_steps >= self.config.learning_starts:
                metrics |= describe_acting(self.policy, window)
            self.policy.normalizer.update(window.obs, window.valid)
        return metrics | collector.metrics()

    def states(self, generator: torch.Generator) -> Tensor:
        """Replayed observations ``[M, O]``."""
        return self.replay.draw((STATES,), generator).obs

    def learn(self) -> Metrics:
        """Makes the gradient steps of an update on minibatches that it draws."""
        config = self.config
        learning_rate = scheduled(
            config.learning_rate, config.learning_rate_schedule, self.collector.progress()
        )
        draws = draw_minibatches(
            self.replay, config.num_minibatches, config.batch_size, self.generator
        )
        reports = [self.take(self.batch_of(drawn), learning_rate) for drawn in draws]
        return mean_reports(reports, TAGS) | {"train/learning_rate": torch.tensor(learning_rate)}

    def take(self, batch: SacBatch, learning_rate: float) -> dict[str, Tensor]:
        """Makes the steps on ``K`` minibatches, and returns what they report, ``[K]`` by name.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; nothing is changed.
        """
        before = SacState(
            self.policy_rule.begin(),
            self.q_rule.begin(),
            self.alpha_rule.begin(),
            self.target_q.flat(),
        )
        state, reports = self.steps.run(before, batch, learning_rate)
        self.policy_rule.end(state.policy)
        self.q_rule.end(state.q)
        self.alpha_rule.end(state.alpha)
        self.target_q.load(state.target)
        return reports

    def batch_of(self, drawn: Transitions) -> SacBatch:
        """What a gradient step reads of the transitions ``[K, B]``, with fresh noise."""
        normalize, shape = self.policy.normalizer, drawn.reward.shape
        scale = self.collector.reward_normalizer.scale.to(drawn.reward.device)
        return SacBatch(
            features=normalize(drawn.obs),
            action=drawn.action,
            reward=(drawn.reward / scale).to(drawn.reward.dtype),
            next_features=normalize(drawn.next_obs),
            alive=(~drawn.terminated).to(drawn.reward.dtype),
            noise=self.policy.draw_noise(*shape, generator=self.generator),
            next_noise=self.policy.draw_noise(*shape, generator=self.generator),
        )

    def step(
        self, state: SacState, mini: SacBatch, rate: Tensor
    ) -> tuple[SacState, dict[str, Tensor]]:
        """One gradient step on a minibatch ``[B]``, by the order of the first code of SAC.

        Temperature, critics, policy, target critics. The temperature of all losses is the one
        before its own step; the policy climbs the critics after theirs.
        """
        with torch.enable_grad():
            weights = state.policy.parameters.detach().requires_grad_()
            action, log_prob = self.act(weights, mini.features, mini.noise)
        alpha_after, alpha, alpha_loss = self.temperature_step(state.alpha, log_prob.detach(), rate)
        target = self.soft_target(state, mini, alpha)
        q_after, q_loss = self.critic_step(state.q, mini, target, rate)
        with torch.enable_grad():
            value = self.q_rule.module.call(
                "policy_value", q_after.parameters, mini.features, action
            )
            policy_loss = (alpha * log_prob - value).mean()
            (gradient,) = torch.autograd.grad(policy_loss, weights)
        policy_after, norm = self.rule.step(state.policy, gradient, rate)
        target_after = torch.lerp(state.target, q_after.parameters, self.config.tau)
        return SacState(policy_after, q_after, alpha_after, target_after), {
            "critic_loss": q_loss,
            "actor_loss": policy_loss.detach(),
            "ent_coef": alpha,
            "ent_coef_loss": alpha_loss,
            "norm": norm,
        }

    def act(self, weights: Tensor, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised actions ``[B, A]`` and their log densities in units of the box."""
        distribution = self.policy_rule.module.call("forward", weights, features)
        pre_action = distribution.pre_action(noise)
        return distribution.squash(pre_action), log_prob_in_box(distribution, pre_action)

    def temperature_step(
        self, state: AdamState, log_prob: Tensor, rate: Tensor
    ) -> tuple[AdamState, Tensor, Tensor]:
        """Descends ``-log(alpha) (mean log pi + target)``; also ``alpha`` before, and the loss."""
        config = self.config
        if config.ent_coef != "auto":
            return state, log_prob.new_tensor(float(config.ent_coef)), log_prob.new_zeros(())
        target = -self.num_actions if config.target_entropy is None else config.target_entropy
        log_alpha, slope = state.parameters, -(log_prob.mean() + target)
        after = adam_step(state, slope.reshape(1), rate, self.rule.betas, self.rule.epsilon)
        return after, log_alpha.exp().squeeze(), (log_alpha * slope).squeeze()

    def soft_target(self, state: SacState, mini: SacBatch, alpha: Tensor) -> Tensor:
        """``r + gamma (min_j Q'_j(s', a') - alpha log pi(a' | s'))`` ``[B]``, only r at an end."""
        action, log_prob = self.act(state.policy.parameters, mini.next_features, mini.next_noise)
        following = self.target_q.call("forward", state.target, mini.next_features, action)
        value = following.amin(0) - alpha * log_prob
        target: Tensor = mini.reward + self.config.gamma * mini.alive * value
        return target.detach()

    def critic_step(
        self, state: AdamState, mini: SacBatch, target: Tensor, rate: Tensor
    ) -> tuple[AdamState, Tensor]:
        """A step on half of the critics' mean loss, summed over the critics."""
        with torch.enable_grad():
            weights = state.parameters.detach().requires_grad_()
            inputs = (mini.features, mini.action, target)
            loss = 0.5 * self.q_rule.module.call("loss", weights, *inputs).mean()
            (gradient,) = torch.autograd.grad(loss, weights)
        return self.rule.step(state, gradient, rate)[0], loss.detach()

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


TAGS = {
    "critic_loss": "train/critic_loss",
    "actor_loss": "train/actor_loss",
    "ent_coef": "train/ent_coef",
    "ent_coef_loss": "train/ent_coef_loss",
    "norm": "train/gradient_norm",
}
"""TensorBoard tag of each number of a minibatch."""
