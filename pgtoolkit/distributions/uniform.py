"""The uniform distribution on a box: actions that depend on nothing."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution, Support, nonzero
from pgtoolkit.distributions.noise import Noise


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Uniform(Distribution):
    """``a = low + (high - low) * sigmoid(eps)`` with logistic noise ``eps``, the pre-action.

    A logistic variable's distribution function is the sigmoid, so ``a`` is uniform on the box. An
    entry whose bounds are equal is a constant and has no density.

    Args:
        low: ``[..., A]`` lower bounds, finite.
        high: ``[..., A]`` upper bounds, finite.
    """

    low: Tensor
    high: Tensor

    @property
    def noise(self) -> tuple[Noise, ...]:
        return (Noise("logistic", self.low.shape[-1]),)

    @property
    def parameter(self) -> Tensor:
        return self.low

    @property
    def support(self) -> Support:
        return Support(self.low, self.high)

    @property
    def log_density(self) -> Tensor:
        """``-sum_i log(high_i - low_i)`` ``[...]``, the density everywhere in the box."""
        return -torch.log(nonzero(self.high - self.low)).sum(-1)

    def pre_action(self, noise: Tensor) -> Tensor:
        return noise

    def squash(self, pre_action: Tensor) -> Tensor:
        action = self.low + (self.high - self.low) * torch.sigmoid(pre_action)
        return torch.clamp(action, self.low, self.high)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        return self.log_density.expand(pre_action.shape[:-1])

    def log_prob(self, action: Tensor) -> Tensor:
        """``log p(action)`` ``[...]``; minus infinity outside the box."""
        inside = ((action >= self.low) & (action <= self.high)).all(-1)
        return torch.where(inside, self.log_density, -torch.inf)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``sum_i log(high_i - low_i)``; exact, needs no noise."""
        return -self.log_density

    @property
    def mode(self) -> Tensor:
        """The middle of the box: no action is more probable than another."""
        return 0.5 * (self.low + self.high)

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.squash(self.pre_action(self.resolve_noise(noise, generator)))
