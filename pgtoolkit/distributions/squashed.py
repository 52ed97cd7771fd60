"""Tanh-squashing to bounds, of any continuous distribution."""

import dataclasses
import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from pgtoolkit.distributions.base import (
    Distribution,
    GaussianParameters,
    Unsquashed,
    require_unsquashed,
)
from pgtoolkit.distributions.gaussian import _gaussian_log_prob
from pgtoolkit.distributions.noise import HALF_LOG_2PI, Noise


def tanh_squash(pre_action: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``centre + scale * tanh(u)``, the middle of the bounds and half of their distance."""
    scale, centre = 0.5 * (high - low), 0.5 * (high + low)
    # The clamp takes back rounding only, which can pass a bound by a unit in the last place.
    return torch.clamp(centre + scale * torch.tanh(pre_action), low, high)


def tanh_unsquash(action: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The inverse; at the bounds, where it is infinite, a large number instead."""
    scale, centre = 0.5 * (high - low), 0.5 * (high + low)
    limit = 1 - torch.finfo(action.dtype).eps
    return torch.atanh(((action - centre) / scale).clamp(-limit, limit))


def tanh_log_abs_det_jacobian(pre_action: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``sum_i log |d a_i / d u_i| = sum_i (log scale_i + log(1 - tanh(u_i)^2))`` ``[...]``.

    In the stable form ``log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u))``.
    """
    log_slope = 2 * (math.log(2) - pre_action - F.softplus(-2 * pre_action))
    return (log_slope + torch.log(0.5 * (high - low))).sum(-1)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Squashed(Distribution):
    """Any unsquashed distribution, bounded: ``a = centre + scale * tanh(u)``, ``u ~ base``.

    ``log p(a) = log p_base(u) - sum_i (log scale_i + log(1 - tanh(u_i)^2))``. Noise, pre-action and
    pathwise gradient are the base's. Of a diagonal Gaussian it is
    :class:`pgtoolkit.distributions.squashed.TanhGaussian`, with the same numbers.

    Args:
        base: over ``[..., A]``.
        low: ``[A]`` lower action bounds.
        high: ``[A]`` upper action bounds.

    Raises:
        RequestError: the base has bounds of its own.
    """

    base: Unsquashed
    low: Tensor
    high: Tensor

    def __post_init__(self) -> None:
        require_unsquashed(self.base)

    @property
    def gaussian(self) -> GaussianParameters | None:
        return self.base.gaussian

    @property
    def noise(self) -> tuple[Noise, ...]:
        return self.base.noise

    @property
    def parameter(self) -> Tensor:
        return self.base.parameter

    def pre_action(self, noise: Tensor) -> Tensor:
        return self.base.pre_action(noise)

    def squash(self, pre_action: Tensor) -> Tensor:
        return tanh_squash(pre_action, self.low, self.high)

    def log_abs_det_jacobian(self, pre_action: Tensor) -> Tensor:
        """``sum_i log |d a_i / d u_i|`` ``[...]``."""
        return tanh_log_abs_det_jacobian(pre_action, self.low, self.high)

    def sample_with_log_prob(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """As the base's, which knows best how to do without its inverse."""
        pre_action, log_prob = self.base.sample_with_log_prob(noise, generator=generator)
        return self.squash(pre_action), log_prob - self.log_abs_det_jacobian(pre_action)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        return self.base.log_prob_of_pre_action(pre_action) - self.log_abs_det_jacobian(pre_action)

    def log_prob(self, action: Tensor) -> Tensor:
        """As above, by inverting tanh: inexact at the bounds. Prefer the pre-squash action."""
        return self.log_prob_of_pre_action(tanh_unsquash(action, self.low, self.high))

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``H(u) + log |da/du|`` at one reparameterised ``u``: unbiased, differentiable.

        The base's entropy is exact where it has a closed form. There is none of the whole.
        """
        noise = self.resolve_noise(noise, generator)
        return self.base.entropy(noise) + self.log_abs_det_jacobian(self.pre_action(noise))

    @property
    def mode(self) -> Tensor:
        """The squashed mode of the base, which zero noise gives."""
        return self.squash(self.base.mode)

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.squash(self.pre_action(self.resolve_noise(noise, generator)))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TanhGaussian(Distribution):
    """A Gaussian squashed to bounds: ``a = centre + scale * tanh(u)``, ``u ~ N(mean, std^2)``.

    ``log p(a) = log N(u) - sum_i (log scale_i + log(1 - tanh(u_i)^2))`` with the stable form
    ``log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u))``.

    Args:
        mean: ``[..., A]`` of the Gaussian before squashing.
        log_std: ``[..., A]``, broadcast to ``mean``.
        low: ``[A]`` lower action bounds.
        high: ``[A]`` upper action bounds.
    """

    mean: Tensor
    log_std: Tensor
    low: Tensor
    high: Tensor

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
        return self.mean + torch.exp(self.log_std) * noise

    def squash(self, pre_action: Tensor) -> Tensor:
        return tanh_squash(pre_action, self.low, self.high)

    def log_abs_det_jacobian(self, pre_action: Tensor) -> Tensor:
        """``sum_i log |d a_i / d u_i|`` ``[...]``."""
        return tanh_log_abs_det_jacobian(pre_action, self.low, self.high)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        gaussian = _gaussian_log_prob(pre_action, self.mean, self.log_std)
        return gaussian - self.log_abs_det_jacobian(pre_action)

    def log_prob(self, action: Tensor) -> Tensor:
        """As above, by inverting tanh: inexact at the bounds. Prefer the pre-squash action."""
        return self.log_prob_of_pre_action(tanh_unsquash(action, self.low, self.high))

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``H(u) + log |da/du|`` at one reparameterised ``u``: unbiased, differentiable.

        The Gaussian part is exact and only the Jacobian is sampled, which has less variance than
        ``-log p`` of a sample. There is no closed form.
        """
        gaussian = (self.log_std.expand_as(self.mean) + HALF_LOG_2PI + 0.5).sum(-1)
        pre_action = self.pre_action(self.resolve_noise(noise, generator))
        return gaussian + self.log_abs_det_jacobian(pre_action)

    @property
    def mode(self) -> Tensor:
        """``centre + scale * tanh(mean)``: the median of the squashed law, not its mean."""
        return self.squash(self.mean)

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.squash(self.pre_action(self.resolve_noise(noise, generator)))
