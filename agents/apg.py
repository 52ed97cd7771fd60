"""APG, analytic policy gradient: the pathwise gradient of a window (Freeman et al. 2021)."""

import dataclasses
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from pgtoolkit.agent import AgentConfig, Metrics
from pgtoolkit.compiling import Compile
from pgtoolkit.envs.collector import (
    begin,
    env_metrics,
    env_position,
    require_differentiable,
    restore_env_position,
    rollout_of,
)
from pgtoolkit.estimators.cross_fitting import leave_one_out_by_fold
from pgtoolkit.estimators.returns import reward_to_go
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.learners.policy_learner import Actor
from pgtoolkit.learners.policy_step import ASCENTS, Estimator, require_estimator
from pgtoolkit.networks.mlp import Activation
from pgtoolkit.rollouts.window import Window


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApgConfig(AgentConfig):
    """Back-propagation through the environment over a window, and nothing beyond the window."""

    learning_rate: float = 5e-3
    """Of the policy."""
    adam_betas: tuple[float, float] = (0.7, 0.95)
    """Decay of Adam's two moments."""
    ent_coef_relative: float = 0.015
    """Weight of the entropy of the squashed action, in units of the standard deviation of the
    window's rewards. Without it a policy can lean against a bound, where tanh is flat and the
    pathwise gradient vanishes, and stay there."""
    activation: Activation = "elu"
    """Of the hidden layers."""
    layer_norm: bool = True
    """LayerNorm after each hidden activation."""
    estimator: Estimator = "pathwise"
    """pathwise; or mixed with the score function, each step with the weight of least variance."""
    compile: Compile = "auto"
    """Compile the step of policy and environment: always, never, or auto, where there is a C++
    compiler and the run is long enough."""
    checkpoint_every: int = 0
    """Keep the graph's states only every so many steps, and take the steps between them again for
    the gradient: the same gradient in less memory, least at about the root of n_steps; 0 keeps the
    whole graph."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_estimator(self, self.estimator)
        self.require("checkpoint_every", self.checkpoint_every >= 0, "at least 0")


@final
class Apg:
    """Climbs ``sum_k gamma^k r_k`` of a window by its derivative through the environment.

    What comes after the window counts for nothing, so ``n_steps`` is how far the policy plans.

    Args:
        config: settings.
        env: a differentiable vector environment of ``config.num_envs`` environments.
        seed: of everything random: weights, noise, starts.
        total_steps: planned environment steps, for the learning-rate schedule.

    Raises:
        RequestError: the environment has no gradient, or its spaces fit no policy.
    """

    needs_gradient: ClassVar[bool] = True

    def __init__(
        self, config: ApgConfig, env: AnyVectorEnv, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config, self.seed = config, seed
        self.env = require_differentiable(env, config.num_envs)
        spaces = self.env.single_observation_space, self.env.single_action_space
        device = self.env.device
        self.actor = Actor(config, *spaces, seed=seed, total_steps=total_steps, device=device)
        self.rollout_state = begin(self.env, seed=seed, device=device)
        self.unroll = rollout_of(
            self.env,
            compile=config.compile,
            checkpoint_every=config.checkpoint_every,
            total_steps=total_steps,
        )

    def collect(self) -> Window:
        noise = self.actor.draw_noise(self.config.n_steps)
        window, self.rollout_state = self.unroll(
            self.env, self.actor.policy, self.rollout_state, noise
        )
        return window

    def update(self, window: Window) -> Metrics:
        with self.actor.monitor.updating():
            gamma, nothing = self.config.gamma, torch.zeros_like(window.log_prob)
            objective = window_objective(window, nothing, gamma)

            def matched_weight(plain: Window) -> Tensor:
                returns = reward_to_go(plain.reward, plain.terminated, plain.truncated, gamma=gamma)
                baseline = leave_one_out_by_fold(returns, plain.valid)
                return matched_score_weight(plain, nothing, baseline, gamma)

            ascend = ASCENTS[self.config.estimator]
            metrics = ascend(self.actor, window, objective, matched_weight)
            return metrics | env_metrics(self.env) | self.actor.finish(window)

    def state_dict(self) -> dict[str, Any]:
        return {"actor": self.actor.state_dict(), "env": env_position(self.env, self.rollout_state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.load_state_dict(state["actor"])
        self.rollout_state = restore_env_position(
            self.env, self.rollout_state, state["env"], seed=self.seed + self.actor.num_steps
        )
