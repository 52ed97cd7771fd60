"""TD3: the slope of the first of two Q functions, delayed and smoothed (Fujimoto et al. 2018)."""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.agent import CriticView, Metrics
from pgtoolkit.compiling import choose_compiled
from pgtoolkit.config import (
    AdamSettings,
    CompileSettings,
    CriticSettings,
    DiagnosticsSettings,
    ProbeSettings,
    ReplaySettings,
    Schedule,
    TorsoSettings,
    Typical,
    above,
    at_least,
    at_most,
    each,
    settings_for,
)
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.distributions.clipped import ClippedGaussian
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
from pgtoolkit.learners.step_rules.flat_adam import AdamState, FlatAdam
from pgtoolkit.limits import MAX_COUNT, MAX_CRITICS, MAX_LAYER, MAX_PASSES
from pgtoolkit.networks.mlp import Activation, Std
from pgtoolkit.networks.spaces import continuous_size
from pgtoolkit.networks.value import Lagged, PolicyValue
from pgtoolkit.policies.factory import DistributionName
from pgtoolkit.policies.policy import without_normalizer
from pgtoolkit.policies.uniform import uniform_policy
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream
from pgtoolkit.state import integer, load_state_of, state_of

MINIBATCH_SECONDS = 2.3e-3
"""Seconds that compiled code saves on one minibatch with the default layers; half with 64 units."""
STATE = (
    "collector",
    "policy",
    "q",
    "target_policy",
    "target_q",
    "policy_rule",
    "q_rule",
    "num_minibatches",
    "replay",
    "generator",
    "monitor",
    "critic_monitor",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Td3Config(
    ReplaySettings,
    AdamSettings,
    CompileSettings,
    CriticSettings,
    ProbeSettings,
    DiagnosticsSettings,
    TorsoSettings,
):
    """Twin delayed deterministic policy gradient: replayed minibatches, two critics."""

    policy_value: ClassVar[PolicyValue] = "first"
    distribution: ClassVar[DistributionName] = "clipped_tanh"
    std: ClassVar[Std] = "state_independent"
    first_bias: ClassVar[float] = 0.0

    num_envs: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 1
    """Number of parallel environments."""
    n_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 32
    """Steps of each environment between two updates (train_freq in Stable-Baselines3)."""
    learning_rate: Annotated[float, above(0)] = 1e-3
    """Adam's learning rate for the policy and the critics."""
    learning_rate_schedule: Schedule = "constant"
    """linear: falls to a hundredth over the planned total of steps; constant: stays."""
    max_grad_norm: Annotated[float, above(0)] = 1e6
    """Norm to which the policy's and the critics' gradients are clipped, each for itself. By
    default it is so large that nothing is."""
    hidden: Annotated[
        tuple[int, ...],
        each(at_least(1), "sizes of at least 1"),
        each(at_most(MAX_LAYER), f"sizes of at most {MAX_LAYER:,}"),
    ] = (256, 256)
    """Sizes of the hidden layers of the policy and of the critics."""
    activation: Activation = "relu"
    """Activation of the hidden layers."""
    layer_norm: bool = False
    """Put a LayerNorm after each hidden activation of the policy."""
    normalize_observations: bool = False
    """Normalise observations by their running mean and variance. These are frozen inside a window
    and saved with the policy."""
    num_critics: Annotated[int, at_least(1), at_most(MAX_CRITICS)] = 2
    """Number of Q functions; targets use the least of them, the policy the first."""
    action_noise: Annotated[float, above(0), Typical(0.05, 0.5)] = 0.1
    """Standard deviation of the exploration noise, in units of the box, in which the bounds are -1
    and 1. It is added to the policy's action, and the sum is clipped to the box."""
    policy_delay: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 2
    """Steps of the critics for each step of the policy and of the target networks."""
    target_policy_noise: Annotated[float, at_least(0)] = 0.2
    """Standard deviation of the noise on the target policy's actions, in units of the box."""
    target_noise_clip: Annotated[float, at_least(0)] = 0.5
    """Largest size of that noise."""

    @property
    def log_std_init(self) -> float:
        """The logarithm of the exploration noise, which no loss changes."""
        return math.log(self.action_noise)


@final
class Td3State(NamedTuple):
    """All that a gradient step changes; of the target networks, the parameters."""

    policy: AdamState
    q: AdamState
    target_policy: Tensor
    target_q: Tensor


@final
class Td3Batch(NamedTuple):
    """Minibatches ``[K, B]`` of transitions, and the noise of the target actions."""

    features: Tensor
    """Observations after the policy's normaliser."""
    action: Tensor
    reward: Tensor
    next_features: Tensor
    alive: Tensor
    """0 where the step reached a terminal state, else 1; also where a time limit cut it off."""
    noise: Tensor
    """Standard normal ``[K, B, A]``."""


@final
class Td3:
    """Increases ``E[Q_1(s, mu(s))]`` over replayed states, ``mu`` the policy's mode.

    The critics are fitted to ``r + gamma min_j Q'_j(s', a')`` with target networks and a smoothed
    target action ``a' = clip(mu'(s') + clip(sigma eps, -c, c))``. Every ``policy_delay``-th step
    also moves the policy and the target networks.

    Args:
        config: settings.
        env: any vector environment of ``config.num_envs`` environments with a bounded box of
            actions, or one environment, an id or a function, of which that many are made.
        seed: determines the weights, the noise, the starts and the minibatches.
        total_steps: planned environment steps, for the learning-rate schedule.

    Raises:
        RequestError: the settings are those of another agent; no policy fits the spaces, or actions
            are discrete or have no bounds.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: Td3Config, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, Td3Config)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        continuous_size(self.collector.spaces[1])
        device = self.collector.device
        self.policy = self.collector.make_policy()
        self.random_policy = uniform_policy(self.policy)
        self.q = make_q_ensemble(config, self.collector.spaces, seed=seed).to(device)
        bare = without_normalizer(self.policy)
        self.target_policy, self.target_q = Lagged(bare, config.tau), Lagged(self.q, config.tau)
        self.policy_rule, self.q_rule = FlatOptimizer(bare), FlatOptimizer(self.q)
        self.flat_target_policy = FlatModule(self.target_policy.copy)
        self.flat_target_q = FlatModule(self.target_q.copy)
        self.rule = FlatAdam(
            betas=config.adam_betas, epsilon=1e-8, max_grad_norm=config.max_grad_norm
        )
        self.replay = make_replay(config.buffer_size, self.collector.spaces, device)
        self.num_minibatches = 0
        self.generator = stream(seed, "minibatches", device)
        self.monitor = GradientMonitor(config.diagnostics_interval, unit=self.collector.reward_unit)
        self.critic_monitor = CriticMonitor(self.collector, config, self.monitor)
        num_updates = total_steps / (config.num_envs * config.n_steps)
        saved = MINIBATCH_SECONDS * num_updates * config.num_minibatches
        self.rounds = ScannedSteps(
            self.round, compiled=choose_compiled(config.compile, saved, device)
        )
        self.short_rounds, self.open_rounds = ScannedSteps(self.round), ScannedSteps(self.critics)

    @property
    def replay_sentence(self) -> str:
        """How much memory the replay buffer takes."""
        return replay_sentence(self.config.buffer_size, self.collector.spaces)

    @property
    def critic(self) -> CriticView:
        """The Q functions."""
        return CriticView(self.q, reward_scale=float(self.collector.reward_normalizer.scale))

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
        taken = [self.take(self.batch_of(drawn), learning_rate) for drawn in draws]
        reports = [report for reports in taken for report in reports]
        return mean_reports(reports, TAGS) | {"train/learning_rate": torch.tensor(learning_rate)}

    def take(self, batch: Td3Batch, learning_rate: float) -> list[dict[str, Tensor]]:
        """Makes the steps on ``K`` minibatches, and returns what they report.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; nothing is changed.
        """
        before = Td3State(
            self.policy_rule.begin(),
            self.q_rule.begin(),
            self.flat_target_policy.flat(),
            self.flat_target_q.flat(),
        )
        state, reports = self.run(before, batch, learning_rate)
        self.policy_rule.end(state.policy)
        self.q_rule.end(state.q)
        self.flat_target_policy.load(state.target_policy)
        self.flat_target_q.load(state.target_q)
        self.num_minibatches += len(batch.reward)
        return reports

    def run(
        self, state: Td3State, batch: Td3Batch, learning_rate: float
    ) -> tuple[Td3State, list[dict[str, Tensor]]]:
        """The steps on ``K`` minibatches in rounds: ``policy_delay`` of the critics, one of all.

        A round may be open from the last call: the first minibatches end it, and the last ones may
        open another.
        """
        delay, total, made = self.config.policy_delay, len(batch.reward), self.num_minibatches
        first = min(-made % delay, total)
        last = total - (total - first) % delay
        ends = (made + first) % delay == 0
        pieces = [
            (self.short_rounds if ends else self.open_rounds, 0, first, first),
            (self.rounds, first, last, delay),
            (self.open_rounds, last, total, total - last),
        ]
        reports = []
        for steps, start, stop, size in pieces:
            if start < stop:
                rows = Td3Batch(*(x[start:stop].view(-1, size, *x.shape[1:]) for x in batch))
                state, found = steps.run(state, rows, learning_rate)
                reports.append(found)
        return state, reports

    def batch_of(self, drawn: Transitions) -> Td3Batch:
        """What a gradient step reads of the transitions ``[K, B]``, with fresh noise."""
        normalize = self.policy.normalizer
        scale = self.collector.reward_normalizer.scale.to(drawn.reward.device)
        return Td3Batch(
            features=normalize(drawn.obs),
            action=drawn.action,
            reward=(drawn.reward / scale).to(drawn.reward.dtype),
            next_features=normalize(drawn.next_obs),
            alive=(~drawn.terminated).to(drawn.reward.dtype),
            noise=self.policy.draw_noise(*drawn.reward.shape, generator=self.generator),
        )

    def round(
        self, state: Td3State, minis: Td3Batch, rate: Tensor
    ) -> tuple[Td3State, dict[str, Tensor]]:
        """Steps of the critics on ``m`` minibatches ``[m, B]``, then one of the policy.

        The policy climbs the critics after their last step, on the states of the last minibatch.
        """
        state, reports = self.critics(state, minis, rate)
        with torch.enable_grad():
            weights = state.policy.parameters.detach().requires_grad_()
            action = self.policy_rule.module.call("forward", weights, minis.features[-1]).mode
            inputs = (minis.features[-1], action)
            value = self.q_rule.module.call("policy_value", state.q.parameters, *inputs)
            (gradient,) = torch.autograd.grad(-value.mean(), weights)
        policy, norm = self.rule.step(state.policy, gradient, rate)
        tau = self.config.tau
        target_policy = torch.lerp(state.target_policy, policy.parameters, tau)
        target_q = torch.lerp(state.target_q, state.q.parameters, tau)
        reports |= {"actor_loss": -value.detach().mean(), "norm": norm}
        return Td3State(policy, state.q, target_policy, target_q), reports

    def critics(
        self, state: Td3State, minis: Td3Batch, rate: Tensor
    ) -> tuple[Td3State, dict[str, Tensor]]:
        """Steps of the critics on minibatches ``[m, B]``, one after another."""
        losses = []
        for index in range(len(minis.reward)):
            state, loss = self.critic_step(state, Td3Batch(*(x[index] for x in minis)), rate)
            losses.append(loss)
        return state, {"critic_loss": torch.stack(losses).mean()}

    def critic_step(self, state: Td3State, mini: Td3Batch, rate: Tensor) -> tuple[Td3State, Tensor]:
        """One step on the critics' mean loss, summed over the critics."""
        target = self.smoothed_target(state, mini)
        with torch.enable_grad():
            weights = state.q.parameters.detach().requires_grad_()
            inputs = (mini.features, mini.action, target)
            loss = self.q_rule.module.call("loss", weights, *inputs).mean()
            (gradient,) = torch.autograd.grad(loss, weights)
        after, _ = self.rule.step(state.q, gradient, rate)
        return state._replace(q=after), loss.detach()

    def smoothed_target(self, state: Td3State, mini: Td3Batch) -> Tensor:
        """``r + gamma min_j Q'_j(s', a')`` ``[B]``, only r at an end."""
        config = self.config
        after: ClippedGaussian = self.flat_target_policy.call(
            "forward", state.target_policy, mini.next_features
        )
        noise = config.target_policy_noise * mini.noise
        noise = noise.clamp(-config.target_noise_clip, config.target_noise_clip)
        inputs = (mini.next_features, after.squash(after.mean + noise))
        following = self.flat_target_q.call("forward", state.target_q, *inputs).amin(0)
        target: Tensor = mini.reward + config.gamma * mini.alive * following
        return target.detach()

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state, {"num_minibatches": integer()})


TAGS = {
    "critic_loss": "train/critic_loss",
    "actor_loss": "train/actor_loss",
    "norm": "train/gradient_norm",
}
"""TensorBoard tag of each number of a minibatch, or of a round."""
