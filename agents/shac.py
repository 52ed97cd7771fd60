"""SHAC: the pathwise gradient of a short window with a terminal value (Xu et al. 2022)."""

import dataclasses
from typing import Any, ClassVar, final

from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.compiling import Compile
from pgtoolkit.envs.collector import (
    begin,
    env_metrics,
    env_position,
    require_differentiable,
    restore_env_position,
    rollout_of,
)
from pgtoolkit.estimators.returns import td_lambda_returns
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.learners.policy_learner import Actor
from pgtoolkit.learners.policy_step import ASCENTS, Estimator, require_estimator
from pgtoolkit.learners.value_learner import Critic, CriticConfig
from pgtoolkit.networks.mlp import Activation
from pgtoolkit.rollouts.window import Window


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShacConfig(CriticConfig):
    """Short-horizon actor-critic: back-propagation through a window, a critic beyond it."""

    gamma: float = 0.98
    """Discount."""
    learning_rate: float = 5e-3
    """Of the policy."""
    vf_learning_rate: float = 5e-3
    """Of the value function; follows the same schedule as the policy's."""
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
class Shac:
    """Climbs ``sum_k gamma^k r_k + gamma^H V(s_H)`` by its derivative through the environment.

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
        self, config: ShacConfig, env: AnyVectorEnv, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config, self.seed = config, seed
        self.env = require_differentiable(env, config.num_envs)
        spaces = self.env.single_observation_space, self.env.single_action_space
        device = self.env.device
        self.actor = Actor(config, *spaces, seed=seed, total_steps=total_steps, device=device)
        self.critic = Critic(config, spaces[0], seed=seed, device=device)
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
            normalize, gamma = self.actor.policy.normalizer, self.config.gamma
            next_value = self.critic.value(normalize(window.next_obs))
            objective = window_objective(window, next_value, gamma)
            next_value = next_value.detach()

            def matched_weight(plain: Window) -> Tensor:
                baseline = self.critic.value(normalize(plain.obs))
                return matched_score_weight(plain, next_value, baseline, gamma)

            ascend = ASCENTS[self.config.estimator]
            metrics = ascend(self.actor, window, objective, matched_weight)
            window = window.detach()
            target = td_lambda_returns(
                window.reward,
                next_value,
                window.terminated,
                window.truncated,
                gamma=gamma,
                lambda_=self.config.gae_lambda,
            )
            learning_rate = self.actor.scheduled(self.config.vf_learning_rate)
            metrics |= self.critic.fit(window, normalize(window.obs), target, learning_rate)
            return metrics | env_metrics(self.env) | self.actor.finish(window)

    def state_dict(self) -> dict[str, Any]:
        return {
            "actor": self.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "env": env_position(self.env, self.rollout_state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])
        self.rollout_state = restore_env_position(
            self.env, self.rollout_state, state["env"], seed=self.seed + self.actor.num_steps
        )
