"""The half of an agent that acts: a policy, its optimiser, its noise and its gradient monitor."""

from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor

from pgtoolkit.agent import AgentConfig, Metrics
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.clipped import ClippedGaussian
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.squashed import Squashed, TanhGaussian
from pgtoolkit.learners.gradient_clip import (
    clip_gradient,
    require_finite_gradient,
    scheduled_learning_rate,
    set_learning_rate,
)
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream

SATURATED = 0.99
"""|tanh(u)| from which an action counts as saturated: there its slope is below 0.02."""


@final
class Actor:
    """Acts, and climbs a surrogate.

    Args:
        config: the agent's configuration.
        observation_space: of one environment.
        action_space: of one environment.
        seed: of the initial weights and of all action noise.
        total_steps: environment steps that the learning-rate schedule plans for.
        device: where the policy lives.
    """

    def __init__(
        self,
        config: AgentConfig,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        seed: int,
        total_steps: int,
        device: torch.device,
    ) -> None:
        self.config, self.total_steps, self.num_steps = config, total_steps, 0
        weights = stream(seed, "policy weights")
        self.policy = make_policy(config, observation_space, action_space, weights).to(device)
        self.generator = stream(seed, "action noise", device)
        self.optimizer = torch.optim.Adam(
            self.policy.parameters(), config.learning_rate, betas=config.adam_betas, fused=True
        )
        self.monitor = GradientMonitor(config.diagnostics_interval, config.num_envs)

    def draw_noise(self, num_steps: int) -> Tensor:
        """Fresh noise ``[T, N, A]`` for a window."""
        return self.policy.draw_noise(num_steps, self.config.num_envs, generator=self.generator)

    def entropy_bonus(self, distribution: Distribution, window: Window) -> Tensor:
        """``(ent_coef + ent_coef_relative * std(r)) * sum_t H(pi(. | s_t))`` ``[N]``.

        Args:
            distribution: the policy's at the window's observations.
            window: whose noise, rewards and steps count.

        Where the entropy must be sampled, it is with the window's noise, so it is differentiable.
        States are constants here: that an action leads to states of more entropy earns it nothing.
        """
        weight = self.entropy_weight(window)
        if weight is None:
            return torch.zeros(window.num_envs, device=window.obs.device)
        entropy = distribution.entropy(window.noise)
        return weight * torch.where(window.valid, entropy, 0.0).sum(0)

    def entropy_weight(self, window: Window) -> float | Tensor | None:
        """What a unit of entropy is worth, in rewards; None for nothing."""
        absolute, relative = self.config.ent_coef, self.config.ent_coef_relative
        if relative == 0:
            return absolute or None
        spread = window.reward.detach()[window.valid].std(unbiased=False)
        return absolute + relative * spread

    def step(self, window: Window) -> Metrics:
        """Clips the gradient, steps, and describes the policy on the window.

        Raises:
            NonFiniteError: a parameter's gradient is not finite; nothing is changed.
        """
        require_finite_gradient(self.policy)
        learning_rate = self.scheduled(self.config.learning_rate)
        set_learning_rate(self.optimizer, learning_rate)
        norm = clip_gradient(self.policy.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        return self.describe(window) | {
            "train/learning_rate": torch.tensor(learning_rate),
            "train/gradient_clipped": (norm > self.config.max_grad_norm).double(),
        }

    def finish(self, window: Window) -> Metrics:
        """Ends an update: counts the steps, and only now lets the normaliser see the window."""
        self.num_steps += int(window.valid.sum())
        self.policy.normalizer.update(window.obs.detach(), window.valid)
        return {"gradient/overhead": self.monitor.overhead}

    def scheduled(self, learning_rate: float) -> float:
        """A learning rate, by the schedule, at this point of the run."""
        progress = self.num_steps / self.total_steps
        return scheduled_learning_rate(learning_rate, self.config.learning_rate_schedule, progress)

    @torch.no_grad()
    def describe(self, window: Window) -> Metrics:
        """Entropy, spread and saturation of the policy on the window, and how far it has moved."""
        distribution = self.policy(window.obs.detach())
        log_ratio = (
            distribution.log_prob_of_pre_action(window.pre_action.detach()) - window.log_prob
        )[window.valid]
        metrics = {
            "train/entropy_loss": -distribution.entropy(window.noise)[window.valid].mean(),
            "train/approx_kl": (log_ratio.exp() - 1 - log_ratio).mean(),
        }
        if isinstance(distribution, DiagonalGaussian | TanhGaussian | ClippedGaussian):
            std = distribution.log_std.exp().expand_as(distribution.mean)
            metrics["train/std"] = std[window.valid].mean()
        if isinstance(distribution, TanhGaussian | Squashed):
            saturated = torch.tanh(window.pre_action.detach()).abs() > SATURATED
            metrics["train/saturated_actions"] = saturated[window.valid].double().mean()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "monitor": self.monitor.state_dict(),
            "num_steps": self.num_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.monitor.load_state_dict(state["monitor"])
        self.num_steps = state["num_steps"]
