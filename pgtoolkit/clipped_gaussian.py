"""A Gaussian whose sample is clipped on its way into the environment, as PPO usually has it."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distribution import Distribution
from pgtoolkit.distributions import DiagonalGaussian
from pgtoolkit.heads import OUTPUT_GAIN, Head, normal_noise
from pgtoolkit.networks import Std, linear, make_std


@final
@dataclasses.dataclass(frozen=True, eq=False)
class ClippedGaussian(Distribution):
    """``u ~ N(mean, std^2)``, ``a = clip(u, low, high)``; densities are those of ``u``.

    The score function is exact: the clip is taken for a part of the environment. The pathwise
    gradient is not its equal: it is 0 beyond the bounds.

    Args:
        mean: ``[..., A]``.
        log_std: ``[..., A]``, broadcast to ``mean``.
        low: ``[A]`` lower action bounds; minus infinity for none.
        high: ``[A]`` upper action bounds.
    """

    mean: Tensor
    log_std: Tensor
    low: Tensor
    high: Tensor

    @property
    def unclipped(self) -> DiagonalGaussian:
        """The law of the pre-action."""
        return DiagonalGaussian(self.mean, self.log_std)

    def draw_noise(self, generator: torch.Generator, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return self.unclipped.draw_noise(generator, sample_shape)

    def pre_action(self, noise: Tensor) -> Tensor:
        return self.unclipped.pre_action(noise)

    def squash(self, pre_action: Tensor) -> Tensor:
        return torch.clamp(pre_action, self.low, self.high)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        """Of the Gaussian, not of the clipped action, which has no density at its bounds."""
        return self.unclipped.log_prob_of_pre_action(pre_action)

    def log_prob(self, action: Tensor) -> Tensor:
        """As above, of an action taken for its own pre-action: exact within the bounds."""
        return self.unclipped.log_prob(action)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Of the Gaussian; exact, needs no noise."""
        return self.unclipped.entropy()

    @property
    def mode(self) -> Tensor:
        return self.squash(self.mean)

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.squash(self.pre_action(self.resolve_noise(noise, generator)))


@final
class ClippedGaussianHead(Head):
    """A mean that is linear in the features, and a standard deviation as ``std`` says.

    Args:
        num_features: ``F``.
        low: ``[A]``.
        high: ``[A]``.
        std: of the scale.
        log_std_init: where its logarithm starts.
        generator: for the initial weights.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        num_features: int,
        low: Tensor,
        high: Tensor,
        *,
        std: Std,
        log_std_init: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.noise_size = self.action_size = size = len(low)
        self.output = linear(num_features, size, OUTPUT_GAIN, generator)
        self.std = make_std(std, num_features, size, log_std_init, generator)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, features: Tensor) -> ClippedGaussian:
        return ClippedGaussian(self.output(features), self.std(features), self.low, self.high)

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        return normal_noise(self.noise_size, batch, generator)
