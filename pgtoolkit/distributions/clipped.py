"""A Gaussian whose sample is clipped to the action bounds, as is usual with PPO."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution, GaussianParameters, nonzero, same_values
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.noise import Noise


@final
@dataclasses.dataclass(frozen=True, eq=False)
class ClippedGaussian(Distribution):
    """``u ~ N(mean, std^2)``, ``a = clip(centre + scale * u, low, high)``; densities are of ``u``.

    The map to the box and the clip count as a part of the environment, so the score-function
    gradient is unbiased. The pathwise gradient is 0 in every dimension in which the action is
    clipped, and ``da/du = scale`` elsewhere.

    Args:
        mean: ``[..., A]``.
        log_std: ``[..., A]``, broadcast to ``mean``.
        low: ``[A]`` lower action bounds; minus infinity for none.
        high: ``[A]`` upper action bounds; infinity for none.
        centre: ``[A]`` the action at ``u = 0``; by default that of :func:`unit_box`.
        scale: ``[A]`` the change of the action with ``u``; by default that of :func:`unit_box`.
    """

    mean: Tensor
    log_std: Tensor
    low: Tensor
    high: Tensor
    centre: Tensor = None  # type: ignore[assignment]  # computed in __post_init__
    scale: Tensor = None  # type: ignore[assignment]  # computed in __post_init__

    def __post_init__(self) -> None:
        if self.centre is None or self.scale is None:
            centre, scale = unit_box(self.low, self.high)
            object.__setattr__(self, "centre", centre)
            object.__setattr__(self, "scale", scale)

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

    def before_clip(self, pre_action: Tensor) -> Tensor:
        """``centre + scale * u`` ``[..., A]``, which may be beyond the bounds."""
        return self.centre + self.scale * pre_action

    def squash(self, pre_action: Tensor) -> Tensor:
        return torch.clamp(self.before_clip(pre_action), self.low, self.high)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        """``log N(u)`` ``[...]``: the clipped action itself has no density at the bounds."""
        return self.unclipped.log_prob_of_pre_action(pre_action)

    def log_prob(self, action: Tensor) -> Tensor:
        """``log N(u)`` ``[...]`` with ``u = (action - centre) / scale``, right within the bounds.

        The ``u`` of an entry without width cannot be told from the action; it counts as 0.
        """
        return self.unclipped.log_prob((action - self.centre) / nonzero(self.scale))

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The entropy of ``u``; exact, needs no noise."""
        return self.unclipped.entropy()

    def closed_form_kl_divergence(self, other: Distribution) -> Tensor | None:
        """The divergence of the unclipped Gaussians, as for :meth:`log_prob`; exact.

        It is at least the divergence of the clipped actions.
        """
        names = ("low", "high", "centre", "scale")
        if not isinstance(other, ClippedGaussian) or not all(
            same_values(getattr(self, name), getattr(other, name)) for name in names
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


def unit_box(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and scale ``[A]`` of a box, entry by entry: the box of a Gaussian is [-1, 1].

    Between two bounds they are the middle and half of the width; without bounds 0 and 1. With one
    bound the scale is 1 and the centre is 1 inside of it, so that five of six samples of an
    untrained policy (mean 0, standard deviation 1) are inside.

    Args:
        low: ``[A]`` lower bounds; minus infinity for none.
        high: ``[A]`` upper bounds; infinity for none.
    """
    below, above = torch.isfinite(low), torch.isfinite(high)
    one = torch.ones_like(low)
    one_sided = torch.where(below, low + 1, torch.where(above, high - 1, 0 * one))
    both = below & above
    return torch.where(both, 0.5 * (low + high), one_sided), torch.where(
        both, 0.5 * (high - low), one
    )
