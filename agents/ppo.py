"""PPO: proximal policy optimisation with a clipped surrogate (Schulman et al. 2017)."""

import dataclasses
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from pgtoolkit.agent import AgentConfig, Metrics
from pgtoolkit.compiling import Compile, choose_compiled
from pgtoolkit.envs.collector import (
    begin,
    collector_of,
    env_device,
    env_metrics,
    env_position,
    require_num_envs,
    restore_env_position,
)
from pgtoolkit.estimators.proximal import standardized
from pgtoolkit.estimators.returns import td_lambda_returns
from pgtoolkit.finite import require_finite_steps
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.learners.gradient_clip import Schedule
from pgtoolkit.learners.minibatches import METRICS, Batch, PpoSettings, PpoUpdate, draw_minibatches
from pgtoolkit.learners.policy_learner import Actor
from pgtoolkit.learners.policy_step import score_term
from pgtoolkit.networks.encoder import make_encoder
from pgtoolkit.networks.value import ValueFunction, explained_variance
from pgtoolkit.policies.factory import DistributionName
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream

MINIBATCH_SECONDS = 7e-4
"""What compiled code saves on one minibatch, at least."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PpoConfig(AgentConfig):
    """Proximal policy optimisation: several epochs of clipped steps on every window."""

    num_envs: int = 8
    """Parallel environments; each gives one trajectory of a window."""
    n_steps: int = 256
    """Steps of each environment in a window."""
    batch_size: int = 64
    """Steps in a minibatch; what is left of an epoch's permutation is left out of that epoch."""
    n_epochs: int = 10
    """Passes over each window."""
    learning_rate: float = 3e-4
    """Of policy and value function."""
    learning_rate_schedule: Schedule = "constant"
    """linear: falls to a hundredth over the planned total of steps; constant: stays."""
    adam_epsilon: float = 1e-5
    """Added to Adam's root."""
    max_grad_norm: float = 0.5
    """Global norm to which the gradient of policy and value function together is clipped."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimates, and of the value function's targets."""
    clip_range: float = 0.2
    """How far the probability ratio may move from 1 before its gradient stops."""
    normalize_advantage: bool = True
    """Standardise the advantages of every minibatch."""
    vf_coef: float = 0.5
    """Weight of the value function's squared error in the loss."""
    distribution: DistributionName = "clipped_gaussian"
    """Of Box actions: clipped_gaussian, as PPO usually has it (the action is clipped on its way
    into the environment); or any other."""
    normalize_observations: bool = False
    """Running mean and variance of observations, frozen inside a window, saved with the policy."""
    compile: Compile = "auto"
    """Compile the loop over minibatches: always, never, or auto, where there is a C++ compiler and
    the run is long enough."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "n_epochs"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        some = "at least 2: with NEXT_STEP autoreset one step can be nothing but resets"
        self.require("n_steps", self.n_steps >= 2, some)
        enough = self.num_envs * self.n_steps > 1 and self.batch_size > 1
        fits = enough or not self.normalize_advantage
        self.require("batch_size", fits, "at least 2, of at least 2 steps, to be normalised")
        self.require("adam_epsilon", self.adam_epsilon > 0, "above 0")
        self.require("gae_lambda", 0 <= self.gae_lambda <= 1, "between 0 and 1")
        self.require("clip_range", self.clip_range > 0, "above 0")
        self.require("vf_coef", self.vf_coef >= 0, "at least 0")
        self.require("ent_coef_relative", self.ent_coef_relative == 0, "0: PPO takes --ent-coef")


@final
class Ppo:
    """Climbs ``min(rho A, clip(rho) A)``, ``A`` generalised advantage estimates.

    Where a measurement is due, the gradient of the first step, at ``rho = 1``, is measured by
    trajectory before the epochs begin: the score function's, with the window's advantages as
    weights, standardised where the minibatches' are.

    Args:
        config: settings.
        env: any vector environment of ``config.num_envs`` environments.
        seed: of everything random: weights, noise, starts, minibatches.
        total_steps: planned environment steps, for the learning-rate schedule.

    Raises:
        RequestError: the spaces fit no policy.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: PpoConfig, env: AnyVectorEnv, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        require_num_envs(env, config.num_envs)
        self.config, self.seed, self.env, device = config, seed, env, env_device(env)
        spaces = env.single_observation_space, env.single_action_space
        self.actor = Actor(config, *spaces, seed=seed, total_steps=total_steps, device=device)
        weights = stream(seed, "value weights")
        encoder, num_features = make_encoder(spaces[0], weights)
        self.value_function = ValueFunction(
            num_features,
            config.hidden,
            activation=config.activation,
            layer_norm=config.layer_norm,
            generator=weights,
            encoder=encoder,
        ).to(device)
        self.generator = stream(seed, "minibatches", device)
        num_minibatches = total_steps * config.n_epochs / config.batch_size
        self.optimizer = PpoUpdate(
            self.actor.policy,
            self.value_function,
            PpoSettings(
                clip_range=config.clip_range,
                vf_coef=config.vf_coef,
                ent_coef=config.ent_coef,
                max_grad_norm=config.max_grad_norm,
                betas=config.adam_betas,
                epsilon=config.adam_epsilon,
                normalize_advantage=config.normalize_advantage,
            ),
            compiled=choose_compiled(config.compile, MINIBATCH_SECONDS * num_minibatches),
        )
        self.rollout_state = begin(env, seed=seed, device=device)
        self.roll = collector_of(env, compile=config.compile, total_steps=total_steps)

    def collect(self) -> Window:
        noise = self.actor.draw_noise(self.config.n_steps)
        window, self.rollout_state = self.roll(
            self.env, self.actor.policy, self.rollout_state, noise
        )
        return window.detach()

    def update(self, window: Window) -> Metrics:
        with self.actor.monitor.updating():
            value, target = self.judge(window)
            metrics = self.measure(window, target - value)
            batch = self.batch(window, target - value, target)
            rows = draw_minibatches(
                len(batch.target), self.config.batch_size, self.config.n_epochs, self.generator
            )
            learning_rate = self.actor.scheduled(self.config.learning_rate)
            found = self.optimizer.run(batch, rows, learning_rate)
            means = dict(zip(METRICS, found.mean(0), strict=True))
            metrics |= self.actor.describe(window)
            metrics |= {
                "train/loss": means["loss"],
                "train/policy_gradient_loss": means["policy_loss"],
                "train/value_loss": means["value_loss"],
                "train/entropy_loss": -means["entropy"],
                "train/approx_kl": means["approx_kl"],
                "train/clip_fraction": means["clip_fraction"],
                "train/gradient_norm": means["norm"],
                "train/explained_variance": explained_variance(
                    value[window.valid], target[window.valid]
                ),
                "train/learning_rate": torch.tensor(learning_rate),
            }
            return metrics | env_metrics(self.env) | self.actor.finish(window)

    @torch.no_grad()
    def judge(self, window: Window) -> tuple[Tensor, Tensor]:
        """``V(obs)`` and the TD(lambda) returns ``[T, N]``; GAE is their difference."""
        normalize = self.actor.policy.normalizer
        value: Tensor = self.value_function(normalize(window.obs))
        target = td_lambda_returns(
            window.reward,
            self.value_function(normalize(window.next_obs)),
            window.terminated,
            window.truncated,
            gamma=self.config.gamma,
            lambda_=self.config.gae_lambda,
        )
        require_finite_steps({"value target": torch.where(window.valid, target, 0.0)})
        return value, target

    def batch(self, window: Window, advantage: Tensor, target: Tensor) -> Batch:
        """The steps that happened, as rows."""
        features = self.actor.policy.normalizer(window.obs)
        fields = (features, window.pre_action, window.noise, window.log_prob, advantage, target)
        if bool(window.valid.all()):
            return Batch(*(x.flatten(0, 1) for x in fields))
        return Batch(*(x[window.valid] for x in fields))

    def measure(self, window: Window, advantage: Tensor) -> Metrics:
        """The gradient of the first step, by trajectory, if a measurement is due."""
        monitor = self.actor.monitor
        if not monitor.due:
            return {}
        weight = torch.zeros_like(advantage)
        weights = advantage[window.valid]
        weight[window.valid] = standardized(weights) if self.config.normalize_advantage else weights
        term = score_term(self.actor, window, weight)
        return monitor.report({"score_function": monitor.measure(self.actor.policy, term)})

    def state_dict(self) -> dict[str, Any]:
        return {
            "actor": self.actor.state_dict(),
            "value_function": self.value_function.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "env": env_position(self.env, self.rollout_state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.load_state_dict(state["actor"])
        self.value_function.load_state_dict(state["value_function"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.rollout_state = restore_env_position(
            self.env, self.rollout_state, state["env"], seed=self.seed + self.actor.num_steps
        )
