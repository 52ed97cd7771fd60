"""The entropy of a policy as a reward of every state on a path, with a learned weight."""

import dataclasses
import math
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from pgtoolkit.agent import Metrics
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.errors import SettingError
from pgtoolkit.estimators.returns import segment_discount
from pgtoolkit.learners.entropy import reward_std
from pgtoolkit.learners.step_rules.adam import Adam, Progress
from pgtoolkit.learners.step_rules.base import StepRule
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import load_state_of, state_of

STATE = ("log_alpha", "rule")


@final
class PathEntropy:
    """``alpha u h(s_t)``, a reward of every state, with ``h = (H(s_t) - target) / A``.

    ``H`` is the exact entropy of the policy's Gaussian before squashing, and ``A`` the number of
    action dimensions. With the usual target ``-A / 2``, ``h`` is 0 at the target and 1 at an
    entropy of ``A / 2``, whatever ``A`` is. ``u`` is the standard deviation of the window's
    rewards (:meth:`measure`), so that one ``alpha`` fits rewards of every scale. ``h`` depends on
    the policy's parameters in two ways:

    - through the state, to which earlier actions have led. :meth:`soft` adds the rewards to a
      window with their graph, and a pathwise gradient follows it;
    - directly, at a fixed state. That part is :meth:`bonus`.

    Args:
        log_alpha: one parameter ``[1]``, the logarithm of ``alpha``.
        rule: makes its steps.
        target: mean entropy in nats at which ``alpha`` rests: below it ``alpha`` rises, and above
            it falls.
        gamma: the discount of the objective.
    """

    def __init__(
        self, log_alpha: nn.ParameterList, rule: StepRule, *, target: float, gamma: float
    ) -> None:
        self.log_alpha, self.rule = log_alpha, rule
        self.target, self.gamma = target, gamma
        self.unit = torch.ones(())

    @classmethod
    def of(cls, config: Any, num_actions: int, progress: Progress, *, device: torch.device) -> Self:
        """The entropy of an agent's settings.

        Args:
            config: an agent's configuration with the rollout and Adam groups of settings,
                ``ent_coef_relative``, ``ent_coef_learning_rate`` and ``target_entropy``.
            num_actions: ``A``.
            progress: returns the completed share of the run, for the learning-rate schedule.
            device: where ``alpha`` lives.
        """
        log_alpha = nn.ParameterList([torch.tensor([math.log(config.ent_coef_relative)])]).to(
            device
        )
        rule = Adam.of(config, log_alpha, progress, learning_rate=config.ent_coef_learning_rate)
        target = -0.5 * num_actions if config.target_entropy is None else config.target_entropy
        return cls(log_alpha, rule, target=target, gamma=config.gamma)

    @property
    def alpha(self) -> Tensor:
        """The weight now, a scalar without a graph."""
        alpha: Tensor = self.log_alpha[0].detach().exp().squeeze()
        return alpha

    def measure(self, window: Window) -> None:
        """Takes ``u`` from the rewards of an update's window, for all that follows."""
        self.unit = reward_std(window)

    def reward(self, distribution: Distribution) -> Tensor:
        """``alpha u h`` ``[...]``, with the distribution's graph.

        Raises:
            RequestError: the distribution has no Gaussian before squashing.
        """
        entropy = gaussian_entropy(distribution)
        return self.alpha * self.unit * (entropy - self.target) / distribution.mode.shape[-1]

    def soft(self, window: Window, distribution: Distribution) -> Window:
        """The window with ``r_t + alpha u h(s_t)`` as its rewards.

        Args:
            window: plain or differentiable.
            distribution: the policy's at the window's observations; with their graph, it enters
                the rewards.
        """
        entropy = torch.where(window.valid, self.reward(distribution), 0.0)
        return dataclasses.replace(window, reward=window.reward + entropy)

    def bonus(self, distribution: Distribution, window: Window) -> Tensor:
        """``alpha u sum_t gamma^k h(s_t)`` ``[N]`` at fixed states.

        ``k`` is the number of earlier steps of the segment, as in the objective.
        """
        reward = self.reward(distribution)
        discount = segment_discount(window.segment_end, self.gamma).to(reward)
        return torch.where(window.valid, discount * reward, 0.0).sum(0)

    def mean(self, distribution: Distribution, window: Window) -> Tensor:
        """The mean of ``H`` over the valid steps of a window, a scalar without a graph."""
        return gaussian_entropy(distribution).detach()[window.valid].mean()

    def step(self, mean_entropy: Tensor) -> Metrics:
        """A step of ``alpha`` down ``alpha (mean H - target)``."""
        before = self.alpha
        loss: Tensor = self.log_alpha[0].exp().squeeze() * (mean_entropy - self.target)
        self.log_alpha.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.rule.step(self.log_alpha)
        return {"train/ent_coef": before, "train/ent_coef_loss": loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


def gaussian_entropy(distribution: Distribution) -> Tensor:
    """The exact entropy ``[...]`` of the Gaussian before squashing, in nats, with its graph.

    Raises:
        RequestError: the distribution has none.
    """
    if distribution.gaussian is None:
        raise SettingError(
            "the entropy of a path is that of a Gaussian before squashing: use --distribution "
            "gaussian, clipped_gaussian or clipped_tanh"
        )
    return DiagonalGaussian(*distribution.gaussian).entropy()
