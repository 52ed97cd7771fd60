"""The bonus that a policy's entropy adds to its objective."""

from typing import NamedTuple, Protocol, Self, final

import torch
from torch import Tensor

from pgtoolkit.config import PolicySettings, RelativeEntropySettings
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.rollouts.window import Window


class Bonus(Protocol):
    """What a policy's objective contains that depends on its parameters directly."""

    def bonus(self, distribution: Distribution, window: Window) -> Tensor:
        """The bonus ``[N]`` of each trajectory, with its graph to the policy's parameters.

        Args:
            distribution: the policy's distribution at the window's observations, constants.
            window: its noise, rewards and valid steps are used.
        """


@final
class EntropyBonus(NamedTuple):
    """``(absolute + relative * std(r)) * sum_t H(pi(. | s_t))``.

    Attributes:
        absolute: weight in the unit of the window's rewards.
        relative: weight in units of the standard deviation of the window's rewards.
    """

    absolute: float = 0.0
    relative: float = 0.0

    @classmethod
    def of(cls, config: PolicySettings) -> Self:
        """Makes the bonus from the two weights in an agent's settings."""
        relative = config.ent_coef_relative if isinstance(config, RelativeEntropySettings) else 0.0
        return cls(config.ent_coef, relative)

    def bonus(self, distribution: Distribution, window: Window) -> Tensor:
        """The bonus ``[N]`` of each trajectory, with its graph to the policy's parameters.

        Where the entropy must be sampled, it is with the window's noise, so it is differentiable.
        States are constants here: an action that leads to states of more entropy earns no bonus.

        Args:
            distribution: the policy's distribution at the window's observations.
            window: its noise, rewards and valid steps are used.
        """
        weight = self.weight(window)
        if weight is None:
            return torch.zeros(window.num_envs, device=window.obs.device)
        entropy = distribution.entropy(window.noise)
        return weight * torch.where(window.valid, entropy, 0.0).sum(0)

    def weight(self, window: Window) -> float | Tensor | None:
        """The worth of one nat of entropy, in rewards; None for nothing."""
        if self.relative == 0:
            return self.absolute or None
        return self.absolute + self.relative * reward_std(window)


def reward_std(window: Window) -> Tensor:
    """The standard deviation of the rewards of a window's valid steps, a scalar."""
    return window.reward.detach()[window.valid].std(unbiased=False)
