"""A Gaussian whose sample is clipped to the action bounds, as is usual with PPO."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution, GaussianParameters, same_values
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.noise import Noise


@final
@dataclasses.dataclass(frozen=True, eq=False)
class ClippedGaussian(Distribution):
    """``u ~ N(mean, std^2)``, ``a = clip(u, low, high)``; all densities are those of ``u``.

    The clip counts as a part of the environment, so the score-function gradient is unbiased. The
    pathwise gradient is 0 in every dimension in which ``u`` is outside the bounds.

    Args:
        mean: ``[..., A]``.
        log_std: ``[..., A]``, broadcast to ``mean``.
        low: ``[A]`` lower action bounds; minus infinity for none.
        high: ``[A]`` upper action bounds; infinity for none.
    """

    mean: Tensor
    log_std: Tensor
    low: Tensor
    high: Tensor

    @property
    def unclipped(self) -> DiagonalGaussian:
        """The distribution of the pre-action ``u``."""
        return DiagonalGaussian(self.mean, self.log_std)

    @property
    def gaussian(self) -> GaussianParameters:
        return GaussianParameters(self.mean, self.log_std)

    @property
    def noise(self) -> tuple[Noise, ...]:
        return (Noise("normal", self.mean.shape[-1]),)

    @property
    def parameter(self) -> Tensor:
        return self.mean

    def pre_action(self, noise: Tensor) -> Tensor:
        return self.unclipped.pre_action(noise)

    def squash(self, pre_action: Tensor) -> Tensor:
        return torch.clamp(pre_action, self.low, self.high)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        """``log N(u)`` ``[...]``: the clipped action itself has no density at the bounds."""
        return self.unclipped.log_prob_of_pre_action(pre_action)

    def log_prob(self, action: Tensor) -> Tensor:
        """``log N(u)`` ``[...]`` with ``u = action``, which is right within the bounds."""
        return self.unclipped.log_prob(action)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The entropy of ``u``; exact, needs no noise."""
        return self.unclipped.entropy()

    def closed_form_kl_divergence(self, other: Distribution) -> Tensor | None:
        """The divergence of the unclipped Gaussians, as for :meth:`log_prob`; exact.

        It is at least the divergence of the clipped actions.
        """
        if not isinstance(other, ClippedGaussian) or not (
            same_values(self.low, other.low) and same_values(self.high, other.high)
        ):
            return None
        return self.unclipped.closed_form_kl_divergence(other.unclipped)

    @property
    def mode(self) -> Tensor:
        return self.squash(self.mean)

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.squash(self.pre_action(self.resolve_noise(noise, generator)))
