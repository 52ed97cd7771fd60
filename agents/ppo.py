"""PPO: proximal policy optimisation with a clipped surrogate (Schulman et al. 2017)."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.compiling import Compile, choose_compiled
from pgtoolkit.config import (
    AdamSettings,
    CompileSettings,
    CorrelatedNoiseSettings,
    DiagnosticsSettings,
    PolicySettings,
    Schedule,
    Typical,
    above,
    at_least,
    at_most,
    between,
    settings_for,
)
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.estimators.proximal import (
    SURROGATES,
    approximate_kl,
    clipped_surrogate,
    mean_and_scale,
    probability_ratio,
    standardized,
)
from pgtoolkit.estimators.returns import window_returns
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.finite import require_finite_steps
from pgtoolkit.learners.entropy import EntropyBonus
from pgtoolkit.learners.minibatches import GivenModules, Minibatches, Objective, draw_minibatches
from pgtoolkit.learners.policy_learner import describe
from pgtoolkit.learners.policy_step import measure
from pgtoolkit.learners.step_rules.adam import scheduled
from pgtoolkit.learners.step_rules.flat_adam import FlatAdam
from pgtoolkit.learners.value_learner import make_value_function
from pgtoolkit.limits import MAX_COUNT, MAX_PASSES
from pgtoolkit.networks.value import explained_variance_metric
from pgtoolkit.policies.factory import DistributionName
from pgtoolkit.policies.policy import without_normalizer
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream
from pgtoolkit.state import entries, load_state_of, number, require, state_of

MINIBATCH_SECONDS = 7e-4
"""Seconds that compiled code saves, at least, on one minibatch."""
STATE = ("collector", "policy", "value_function", "minibatches", "generator", "monitor", "pace")

FASTER, SLOWEST, FASTEST = 1.5, 0.01, 10.0
"""Factor of an adaptive learning rate from one update to the next, and its ends, relative to the
one that is set."""
TOO_FAR = 1.5
"""Multiple of target_kl beyond which an epoch is the last of its update."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PpoConfig(
    CorrelatedNoiseSettings, AdamSettings, CompileSettings, PolicySettings, DiagnosticsSettings
):
    """Proximal policy optimisation: several epochs of clipped steps on every window."""

    num_envs: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 8
    """Number of parallel environments; each gives one trajectory of a window."""
    n_steps: Annotated[
        int,
        at_least(2, "one step of all environments may be nothing but resets"),
        at_most(MAX_COUNT),
    ] = 256
    """Steps of each environment in a window."""
    batch_size: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 64
    """Steps in a minibatch; the remainder of an epoch's permutation is left out of that epoch."""
    n_epochs: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 10
    """Passes over each window."""
    learning_rate: Annotated[float, above(0)] = 3e-4
    """Adam's learning rate for the policy and the value function."""
    learning_rate_schedule: Schedule = "constant"
    """linear: falls to a hundredth over the planned total of steps; constant: stays."""
    adapt_learning_rate: bool = False
    """Divide the learning rate by 1.5 after an update whose approx_kl is above twice target_kl, and
    multiply it by 1.5 after one below half of it, within a hundredth and ten times the schedule's
    rate."""
    target_kl: Annotated[float | None, above(0)] = None
    """Divergence KL(old, new) from the policy that collected the window, in nats. An epoch whose
    mean approx_kl is above 1.5 times it is an update's last. Default: all epochs are made."""
    adam_epsilon: Annotated[float, above(0)] = 1e-5
    """Number that is added to the root of Adam's second moment."""
    max_grad_norm: Annotated[float, above(0)] = 0.5
    """Global norm to which the gradient of policy and value function together is clipped."""
    gae_lambda: Annotated[float, between(0, 1), Typical(0.8, 0.995)] = 0.95
    """Lambda of generalised advantage estimates, and of the value function's targets."""
    normalize_rewards: bool = True
    """Scale rewards by the running standard deviation of the discounted return, in updates only:
    returns that are logged, and evaluations, stay in the environment's unit."""
    surrogate: Literal["clip", "spo"] = "clip"
    """Of the probability ratio: clip, PPO's, whose gradient is 0 beyond clip_range; or spo, a
    parabola with its top there, which pulls a ratio back from beyond."""
    clip_range: Annotated[float, above(0), Typical(0.05, 0.4)] = 0.2
    """Distance of the probability ratio from 1 where clip cuts it off, and spo has its top."""
    normalize_advantage: bool = True
    """Standardise the advantages of every minibatch."""
    vf_coef: Annotated[float, at_least(0)] = 0.5
    """Weight of the value function's squared error in the loss."""
    vf_clip_range: Annotated[float | None, above(0)] = None
    """Change of the value function in an update beyond which it earns nothing: the loss is the
    greater one of that with and without the clip, in the unit of the rewards that the update sees.
    Default: no clip."""
    distribution: DistributionName = "clipped_gaussian"
    """Distribution of Box actions: clipped_gaussian (a Gaussian in units of the box, with mean 0 in
    its middle, clipped on its way into the environment); or any other."""
    normalize_observations: bool = False
    """Normalise observations by their running mean and variance. These are frozen inside a window
    and saved with the policy."""
    compile: Compile = "auto"
    """Compile the loop over minibatches: always, never, or auto, where there is a C++ compiler and
    the run is long enough."""

    def __post_init__(self) -> None:
        super().__post_init__()
        enough = self.num_envs * self.n_steps > 1 and self.batch_size > 1
        fits = enough or not self.normalize_advantage
        self.require("batch_size", fits, "at least 2, of at least 2 steps, to be normalised")
        known = self.target_kl is not None or not self.adapt_learning_rate
        self.require("target_kl", known, "given for --adapt-learning-rate")


Surrogate = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Maps ``log pi``, ``log pi_old``, the advantage ``[M]`` and the clip range to a surrogate."""


@final
class Batch(NamedTuple):
    """The steps of a window that happened, ``M`` rows of each."""

    features: Tensor
    """Observations after the policy's normaliser."""
    pre_action: Tensor
    noise: Tensor
    log_prob: Tensor
    advantage: Tensor
    target: Tensor


@final
class Ppo:
    """Increases ``min(rho A, clip(rho) A)``, ``A`` generalised advantage estimates.

    In an update that is measured, the gradient of its first step, at ``rho = 1``, is measured by
    trajectory before the epochs begin: it is the score function's, with the window's advantages as
    weights, less their mean where the minibatches' are standardised. That is the standardised
    gradient, the entropy bonus included, times the advantages' standard deviation: the direction of
    the step in the unit of (normalised) returns, as other agents' gradients are.

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
        self, config: PpoConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, PpoConfig)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        observation_space, device = self.collector.spaces[0], self.collector.device
        self.policy = self.collector.make_policy()
        self.value_function = make_value_function(config, observation_space, seed=seed).to(device)
        self.generator = stream(seed, "minibatches", device)
        self.monitor = GradientMonitor(config.diagnostics_interval, unit=self.collector.reward_unit)
        self.pace = Pace()
        num_minibatches = total_steps * config.n_epochs / config.batch_size
        self.minibatches: Minibatches[Batch] = Minibatches(
            [
                Objective(
                    {"policy": without_normalizer(self.policy), "value": self.value_function},
                    self.loss,
                    FlatAdam(
                        betas=config.adam_betas,
                        epsilon=config.adam_epsilon,
                        max_grad_norm=config.max_grad_norm,
                    ),
                )
            ],
            compiled=choose_compiled(config.compile, MINIBATCH_SECONDS * num_minibatches, device),
        )

    def collect(self) -> Window:
        return self.collector.collect(self.policy).detach()

    def update(self, window: Window) -> Metrics:
        config, normalize = self.config, self.policy.normalizer
        with self.monitor.updating():
            window = self.collector.normalized(window)
            features = normalize(window.obs)
            value, target = self.value_and_target(window, features)
            metrics = self.measure(window, features, target - value)
            batch = batch_of(window, features, target - value, target)
            rows = draw_minibatches(
                len(batch.target), config.batch_size, config.n_epochs, self.generator
            )
            metrics |= self.run_epochs(batch, rows)
            metrics |= explained_variance_metric(value[window.valid], target[window.valid])
            metrics = describe(without_normalizer(self.policy)(features), window) | metrics
            metrics["gradient/overhead"] = self.monitor.overhead
            normalize.update(window.obs, window.valid)
            return metrics | self.collector.metrics()

    def run_epochs(self, batch: Batch, rows: Tensor) -> Metrics:
        """Makes the steps of an update: all epochs, or up to the one that goes beyond target_kl.

        Args:
            batch: the steps of the window.
            rows: ``[K, B]``, an equal number of minibatches for each epoch.
        """
        config, learning_rate, target = self.config, self.learning_rate, self.config.target_kl
        # At once where no epoch is asked for its divergence.
        epochs = rows.chunk(1 if target is None else config.n_epochs)
        found: dict[str, list[Tensor]] = {}
        for epoch in epochs:
            for name, values in self.minibatches.run(batch, epoch, learning_rate).items():
                found.setdefault(TAGS[name], []).append(values)
            if target is not None and bool(found[TAGS["approx_kl"]][-1].mean() > TOO_FAR * target):
                break
        metrics = {tag: torch.cat(parts).mean() for tag, parts in found.items()}
        metrics["train/learning_rate"] = torch.tensor(learning_rate)
        if target is not None:
            metrics["train/epochs"] = torch.tensor(float(len(found[TAGS["loss"]])))
        if target is not None and config.adapt_learning_rate:
            self.pace.adapt(float(metrics[TAGS["approx_kl"]]) / target)
        return metrics

    @property
    def learning_rate(self) -> float:
        """The learning rate of this update."""
        config = self.config
        progress = self.collector.progress()
        return self.pace.factor * scheduled(
            config.learning_rate, config.learning_rate_schedule, progress
        )

    def loss(self, modules: GivenModules, mini: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a minibatch, and what is reported of it."""
        config = self.config
        distribution: Distribution = modules["policy"](mini.features)
        return ppo_loss(
            distribution.log_prob_of_pre_action(mini.pre_action),
            mini.log_prob,
            standardized(mini.advantage) if config.normalize_advantage else mini.advantage,
            modules["value"](mini.features),
            mini.target,
            distribution.entropy(mini.noise),
            surrogate=SURROGATES[config.surrogate],
            clip_range=config.clip_range,
            old_value=mini.target - mini.advantage,
            vf_clip_range=config.vf_clip_range,
            vf_coef=config.vf_coef,
            ent_coef=config.ent_coef,
        )

    @torch.no_grad()
    def value_and_target(self, window: Window, features: Tensor) -> tuple[Tensor, Tensor]:
        """``V(obs)`` and the TD(lambda) returns ``[T, N]``; GAE is their difference."""
        value: Tensor = self.value_function(features)
        next_value = self.value_function(self.policy.normalizer(window.next_obs))
        target = window_returns(
            window, next_value, gamma=self.config.gamma, lambda_=self.config.gae_lambda
        )
        require_finite_steps({"value target": torch.where(window.valid, target, 0.0)})
        return value, target

    def measure(self, window: Window, features: Tensor, advantage: Tensor) -> Metrics:
        """Statistics of the gradient of the first step, by trajectory, if that is due."""
        if not self.monitor.measures(window.num_envs):
            return {}
        mean, scale = torch.zeros(()), torch.ones(())
        if self.config.normalize_advantage:
            mean, scale = mean_and_scale(advantage[window.valid])
        signals = Signals(self.policy, window, weight=advantage - mean, features=features)
        entropy = EntropyBonus(self.config.ent_coef * float(scale))
        return measure(
            "score_function",
            signals,
            monitor=self.monitor,
            entropy=entropy,
            divisor=self.config.n_steps,
        )

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


@final
class Pace:
    """A factor of the learning rate that follows the divergence of the updates."""

    def __init__(self) -> None:
        self.factor = 1.0

    def adapt(self, divergence: float) -> None:
        """Slower after a divergence above 2, in units of the target, faster after one below 1/2."""
        if divergence > 2:
            self.factor = max(self.factor / FASTER, SLOWEST)
        elif divergence < 0.5:
            self.factor = min(self.factor * FASTER, FASTEST)

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads what :meth:`state_dict` returned.

        Raises:
            StateError: it is no factor.
        """
        require(state, entries({"factor": number(low=SLOWEST)}))
        self.factor = float(state["factor"])


TAGS = {
    "loss": "train/loss",
    "policy_loss": "train/policy_gradient_loss",
    "value_loss": "train/value_loss",
    "entropy_loss": "train/entropy_loss",
    "approx_kl": "train/approx_kl",
    "clip_fraction": "train/clip_fraction",
    "norm": "train/gradient_norm",
}
"""TensorBoard tag of each number of a minibatch."""


def batch_of(window: Window, features: Tensor, advantage: Tensor, target: Tensor) -> Batch:
    """The steps that happened, as rows; views where all of them did."""
    fields = (features, window.pre_action, window.noise, window.log_prob, advantage, target)
    if bool(window.valid.all()):
        return Batch(*(x.flatten(0, 1) for x in fields))
    return Batch(*(x[window.valid] for x in fields))


def value_error(
    value: Tensor, target: Tensor, old_value: Tensor | None, clip_range: float | None
) -> Tensor:
    """``(V - G)^2`` ``[M]``, or ``max((V - G)^2, (V_old + clip(V - V_old, -c, c) - G)^2)``."""
    plain = (value - target).square()
    if old_value is None or clip_range is None:
        return plain
    change = (value - old_value).clamp(-clip_range, clip_range)
    return torch.maximum(plain, (old_value + change - target).square())


def ppo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    value: Tensor,
    target: Tensor,
    entropy: Tensor,
    *,
    surrogate: Surrogate = clipped_surrogate,
    clip_range: float,
    old_value: Tensor | None = None,
    vf_clip_range: float | None = None,
    vf_coef: float,
    ent_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """``-mean(surrogate) + vf_coef mean((V - G)^2) - ent_coef mean(H)`` (eq. 9).

    Args:
        log_prob: ``[M]`` of the policy now.
        old_log_prob: ``[M]`` when the action was taken.
        advantage: ``[M]``.
        value: ``[M]`` of the observations.
        target: ``[M]`` returns that the value function is fitted to.
        entropy: ``[M]``.
        surrogate: of the probability ratio ``rho``.
        clip_range: clip of the ratio.
        old_value: ``[M]`` of the observations before the update, for the clip of the value.
        vf_clip_range: clip of the value's change; None for none.
        vf_coef: weight of the value loss.
        ent_coef: weight of the entropy.

    Returns:
        The loss and its parts. ``approx_kl`` is :func:`approximate_kl
        <pgtoolkit.estimators.proximal.approximate_kl>`; ``clip_fraction`` is the share of samples
        whose ratio lies beyond the clip.
    """
    policy_loss = -surrogate(log_prob, old_log_prob, advantage, clip_range).mean()
    value_loss = value_error(value, target, old_value, vf_clip_range).mean()
    mean_entropy = entropy.mean()
    loss = policy_loss + vf_coef * value_loss - ent_coef * mean_entropy
    log_ratio = (log_prob - old_log_prob).detach()
    ratio = probability_ratio(log_ratio)
    return loss, {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "entropy_loss": -mean_entropy.detach(),
        "approx_kl": approximate_kl(log_ratio),
        "clip_fraction": ((ratio - 1).abs() > clip_range).to(ratio.dtype).mean(),
    }
