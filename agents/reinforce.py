"""REINFORCE: the score-function gradient, with any of the usual weights (Williams 1992)."""

import dataclasses
from typing import Any, ClassVar, Literal, final

import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.agent import Metrics
from pgtoolkit.envs.collector import (
    begin,
    env_device,
    env_metrics,
    env_position,
    require_num_envs,
    restore_env_position,
)
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.estimators.baselines import leave_one_out
from pgtoolkit.estimators.returns import segment_discount, segment_returns, td_lambda_returns
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.learners.policy_learner import Actor
from pgtoolkit.learners.policy_step import ascend_score_function
from pgtoolkit.learners.value_learner import Critic, CriticConfig
from pgtoolkit.rollouts.rollout import collect, unroll
from pgtoolkit.rollouts.whole_episodes import collect_episodes
from pgtoolkit.rollouts.window import Window


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReinforceConfig(CriticConfig):
    """Score-function policy gradient on any environment."""

    num_envs: int = 16
    """Parallel environments; each gives one trajectory of a window."""
    adam_betas: tuple[float, float] = (0.7, 0.95)
    """Decay of Adam's two moments. A long memory of early, large gradients would stop the learning
    once returns are high and gradients small."""
    log_std_init: float = -1.0
    """Initial logarithm of the standard deviation, before squashing."""
    n_steps: int = 64
    """Steps of each environment in a window; not used with whole episodes."""
    rollout: Literal["windows", "episodes"] = "windows"
    """windows: n_steps of every environment, bootstrapped with the value function at their end;
    episodes: one whole episode of every environment, from a reset (steps that the slower ones take
    beyond are discarded, and are not counted)."""
    baseline: Literal["none", "leave_one_out", "value"] = "value"
    """What is subtracted from the return: nothing, the mean of the other trajectories at the same
    step, or the learned value."""
    advantage: Literal["return", "reward_to_go", "gae"] = "gae"
    """return: of the whole segment, discounted from its start, so step k is weighed by gamma^k;
    reward_to_go: from the step on; gae: the same with lambda (it needs the baseline value)."""
    discounted_score: bool = False
    """Weigh step k of a segment by gamma^k, which the gradient of the discounted objective has, and
    which nearly everybody leaves out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.advantage != "gae" or self.baseline == "value"
        self.require("advantage", fits, "return or reward_to_go unless --baseline is value")
        fits = not (self.discounted_score and self.advantage == "return")
        self.require(
            "discounted_score", fits, "off with --advantage return, which discounts already"
        )


@final
class Reinforce:
    """Climbs ``sum_t w_t log pi(a_t | s_t)``, ``w_t`` a return less a baseline.

    On windows of a differentiable environment the pathwise gradient of the same trajectories is
    measured beside it.

    Args:
        config: settings.
        env: any vector environment of ``config.num_envs`` environments.
        seed: of everything random: weights, noise, starts.
        total_steps: planned environment steps, for the learning-rate schedule.

    Raises:
        RequestError: the spaces fit no policy.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self,
        config: ReinforceConfig,
        env: AnyVectorEnv,
        *,
        seed: int = 0,
        total_steps: int = 500_000,
    ) -> None:
        require_num_envs(env, config.num_envs)
        self.config, self.seed, self.env, device = config, seed, env, env_device(env)
        spaces = env.single_observation_space, env.single_action_space
        self.actor = Actor(config, *spaces, seed=seed, total_steps=total_steps, device=device)
        self.critic = Critic(config, spaces[0], seed=seed, device=device)
        self.rollout_state = begin(env, seed=seed, device=device)

    def collect(self) -> Window:
        policy = self.actor.policy
        if self.config.rollout == "episodes":
            return collect_episodes(self.env, policy, self.actor.draw_noise)
        env, noise = self.env, self.actor.draw_noise(self.config.n_steps)
        continuous = isinstance(env.single_action_space, Box)
        due = continuous and self.actor.monitor.due
        if isinstance(env, DifferentiableVectorEnv) and due and env.env.gradient.action != "none":
            # With the graph, so that the pathwise gradient can be measured beside.
            window, self.rollout_state = unroll(env, policy, self.rollout_state, noise)
        else:
            window, self.rollout_state = collect(env, policy, self.rollout_state, noise)
        return window

    def update(self, window: Window) -> Metrics:
        with self.actor.monitor.updating():
            normalize, gamma = self.actor.policy.normalizer, self.config.gamma
            next_value = self.critic.value(normalize(window.next_obs))
            objective = window_objective(window, next_value, gamma)
            plain, next_value = window.detach(), next_value.detach()
            value = self.critic.value(normalize(plain.obs))
            target = self.returns(plain, next_value, self.config.gae_lambda)

            def matched_weight(plain: Window) -> Tensor:
                return matched_score_weight(plain, next_value, value, gamma)

            metrics = ascend_score_function(
                self.actor,
                window,
                self.weight(plain, value, next_value, target),
                objective if window.differentiable else None,
                matched_weight,
            )
            learning_rate = self.actor.scheduled(self.config.vf_learning_rate)
            metrics |= self.critic.fit(plain, normalize(plain.obs), target, learning_rate)
            metrics["train/policy_gradient_loss"] = -objective.detach().mean() / window.num_steps
            return metrics | env_metrics(self.env) | self.actor.finish(plain)

    def weight(self, window: Window, value: Tensor, next_value: Tensor, target: Tensor) -> Tensor:
        """The weight of ``log pi`` at every step ``[T, N]``."""
        returns = target
        if self.config.advantage != "gae":
            returns = self.returns(window, next_value, 1.0)
        if self.config.advantage == "return":
            returns = segment_returns(returns, window.cut)
        baseline = {
            "none": lambda: torch.zeros_like(returns),
            "leave_one_out": lambda: leave_one_out(returns, window.valid),
            "value": lambda: value,
        }[self.config.baseline]()
        weight = returns - baseline
        if self.config.discounted_score:
            weight = weight * segment_discount(window.cut, self.config.gamma).to(weight)
        return weight

    def returns(self, window: Window, next_value: Tensor, lambda_: float) -> Tensor:
        """TD(lambda) returns ``[T, N]``; GAE is these less the value."""
        return td_lambda_returns(
            window.reward,
            next_value,
            window.terminated,
            window.truncated,
            gamma=self.config.gamma,
            lambda_=lambda_,
        )

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
