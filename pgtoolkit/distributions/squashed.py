"""Tanh-squashing to bounds, of any continuous distribution."""

import dataclasses
import functools
import math
from abc import abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from pgtoolkit.distributions.base import (
    Distribution,
    GaussianParameters,
    Support,
    Unsquashed,
    nonzero,
    require_unsquashed,
)
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.noise import Noise


class TanhSquashed(Distribution):
    """``a = centre + scale * tanh(u)``, ``u`` from an unbounded distribution, the base.

    ``log p(a) = log p_base(u) - sum_i (log scale_i + log(1 - tanh(u_i)^2))``, with ``centre`` the
    middle of the bounds and ``scale`` half of their distance. The pre-action is ``u``; the noise
    and the pathwise gradient of ``u`` are the base's. Where the two bounds are equal the action is
    a constant, and the density is that of ``tanh(u)``, with ``log scale`` left out.
    """

    low: Tensor
    """``[A]`` lower action bounds."""
    high: Tensor
    """``[A]`` upper action bounds."""

    @property
    @abstractmethod
    def unsquashed(self) -> Unsquashed:
        """The distribution of ``u``."""

    @property
    def gaussian(self) -> GaussianParameters | None:
        return self.unsquashed.gaussian

    @property
    def noise(self) -> tuple[Noise, ...]:
        return self.unsquashed.noise

    @property
    def parameter(self) -> Tensor:
        return self.unsquashed.parameter

    @property
    def support(self) -> Support:
        return Support(self.low, self.high)

    def pre_action(self, noise: Tensor) -> Tensor:
        return self.unsquashed.pre_action(noise)

    def squash(self, pre_action: Tensor) -> Tensor:
        return tanh_squash(pre_action, self.low, self.high)

    def log_abs_det_jacobian(self, pre_action: Tensor) -> Tensor:
        """``sum_i log |d a_i / d u_i|`` ``[...]``."""
        return tanh_log_abs_det_jacobian(pre_action, self.low, self.high)

    def sample_with_log_prob(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """A sample without a graph, and its log density, whose graph leads to the parameters only.

        Both come from the base's method, which avoids inverting whatever it can.
        """
        pre_action, log_prob = self.unsquashed.sample_with_log_prob(noise, generator=generator)
        return self.squash(pre_action), log_prob - self.log_abs_det_jacobian(pre_action)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        log_prob = self.unsquashed.log_prob_of_pre_action(pre_action)
        return log_prob - tanh_log_abs_det_jacobian(pre_action, self.low, self.high)

    def log_prob(self, action: Tensor) -> Tensor:
        """``log p(action)`` ``[...]`` by inverting tanh, which is inexact near the bounds.

        Where the pre-action is known, use :meth:`log_prob_of_pre_action` or
        :meth:`sample_with_log_prob`, which are exact. The rounding of the action to its dtype
        hides where in the tail ``u`` was: it shifts ``u`` by up to ``rho exp(2 |u|) / 4`` with
        ``rho = eps / 2 * max(|low|, |high|) / scale``, and the density's logarithm by
        ``|d log p_base / du + 2 tanh(u)|`` times that. For bounds of -1 and 1 in float32 and a
        standard normal base around ``u`` the error is at most

        ===========  ======  ======  ====  ===  ==============================
        ``|u|``      4       6       7     8    10 (rounded to the bound)
        error        5e-5    3e-3    0.02  0.2  2.5, and by 2 more for each 1
        ===========  ======  ======  ====  ===  ==============================

        and larger by ``1 / std^2`` for other bases. An action at a bound has a finite density, that
        of the smallest pre-action that is rounded to the bound (:func:`tanh_unsquash`). In float64
        the errors at ``|u|`` are those of ``|u| - 10``.
        """
        return self.log_prob_of_pre_action(tanh_unsquash(action, self.low, self.high))

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``H(u) + log |da/du|`` at one reparameterised ``u``: unbiased, differentiable.

        The base's entropy is exact where it has a closed form; then only the Jacobian is sampled,
        which has less variance than ``-log p`` of a sample. The sum has no closed form.
        """
        noise = self.resolve_noise(noise, generator)
        return self.unsquashed.entropy(noise) + self.log_abs_det_jacobian(self.pre_action(noise))

    def kl_divergence(
        self,
        other: Distribution,
        noise: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The bases' divergence if both are squashed to the same bounds; else sampled.

        Squashing is invertible and leaves the divergence unchanged.
        """
        if isinstance(other, TanhSquashed) and self.support.equals(other.support):
            return self.unsquashed.kl_divergence(other.unsquashed, noise, generator=generator)
        return super().kl_divergence(other, noise, generator=generator)

    @property
    def mode(self) -> Tensor:
        """The squashed mode of the base, which zero noise gives; not the action's mean."""
        return self.squash(self.unsquashed.mode)

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.squash(self.pre_action(self.resolve_noise(noise, generator)))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Squashed(TanhSquashed):
    """Any unbounded distribution, tanh-squashed to bounds.

    With a diagonal Gaussian as its base it equals
    :class:`pgtoolkit.distributions.squashed.TanhGaussian`, to the bit.

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
    def unsquashed(self) -> Unsquashed:
        return self.base


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TanhGaussian(TanhSquashed):
    """A diagonal Gaussian, tanh-squashed to bounds.

    Args:
        mean: ``[..., A]``, the Gaussian's mean before squashing.
        log_std: ``[..., A]``, broadcast to ``mean``.
        low: ``[A]`` lower action bounds.
        high: ``[A]`` upper action bounds.
    """

    mean: Tensor
    log_std: Tensor
    low: Tensor
    high: Tensor

    @functools.cached_property
    def unsquashed(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean, self.log_std)


def tanh_squash(pre_action: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``centre + scale * tanh(u)``, the middle of the bounds and half of their distance."""
    scale, centre = 0.5 * (high - low), 0.5 * (high + low)
    # Rounding can pass a bound by a unit in the last place; the clamp undoes only that.
    return torch.clamp(centre + scale * torch.tanh(pre_action), low, high)


def tanh_unsquash(action: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The inverse of :func:`tanh_squash`, in float64, as far as the rounded action tells.

    Actions closer to a bound than half of the dtype's spacing there were rounded to the bound. They
    are taken to be at that distance, which is the smallest pre-action that gives the bound: 9.0 for
    bounds of -1 and 1 in float32, 18.7 in float64. Where both bounds are equal, ``u`` counts as 0.
    """
    scale, centre = nonzero(0.5 * (high - low)), 0.5 * (high + low)
    largest = torch.maximum(low.abs(), high.abs()).double()
    rounding = 0.25 * torch.finfo(action.dtype).eps * largest / scale
    limit = 1 - rounding.clamp(0.5 * torch.finfo(torch.float64).eps, 1.0)
    position = (action.double() - centre) / scale
    inside = torch.minimum(torch.maximum(position, -limit), limit)
    return torch.atanh(inside).to(action.dtype)


def tanh_log_abs_det_jacobian(pre_action: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``sum_i log |d a_i / d u_i| = sum_i (log scale_i + log(1 - tanh(u_i)^2))`` ``[...]``.

    In the stable form ``log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u))``. An entry without
    width is a constant; its ``log scale`` is left out, and the density is that of ``tanh(u_i)``.
    """
    log_slope = 2 * (math.log(2) - pre_action - F.softplus(-2 * pre_action))
    return (log_slope + torch.log(nonzero(0.5 * (high - low)))).sum(-1)
