"""Distributions over actions, as values: Gaussian, tanh-squashed Gaussian, categorical."""

import dataclasses
import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from pgtoolkit.distribution import Distribution
from pgtoolkit.errors import RequestError

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _gaussian_log_prob(value: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    standardised = (value - mean) * torch.exp(-log_std)
    return (-0.5 * standardised.square() - log_std - HALF_LOG_2PI).sum(-1)


def draw_normal(like: Tensor, generator: torch.Generator, sample_shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise ``[*sample_shape, *like.shape]``, of its dtype, on its device."""
    shape = (*sample_shape, *like.shape)
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def draw_gumbel(like: Tensor, generator: torch.Generator, sample_shape: tuple[int, ...]) -> Tensor:
    """Standard Gumbel noise: minus the logarithm of an exponential variable is one."""
    shape = (*sample_shape, *like.shape)
    exponential = torch.empty(shape, device=like.device, dtype=like.dtype)
    return -torch.log(exponential.exponential_(generator=generator))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalGaussian(Distribution):
    """``N(mean, diag(exp(log_std))^2)``; ``a = mean + exp(log_std) * eps``. Not squashed.

    Args:
        mean: ``[..., A]``.
        log_std: ``[..., A]``, broadcast to ``mean``.
    """

    mean: Tensor
    log_std: Tensor

    def draw_noise(self, generator: torch.Generator, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return draw_normal(self.mean, generator, sample_shape)

    def pre_action(self, noise: Tensor) -> Tensor:
        return self.mean + torch.exp(self.log_std) * noise

    def squash(self, pre_action: Tensor) -> Tensor:
        return pre_action

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        return _gaussian_log_prob(pre_action, self.mean, self.log_std)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_prob_of_pre_action(action)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``sum_i (log sigma_i + 1/2 log(2 pi e))``; exact, needs no noise."""
        return (self.log_std.expand_as(self.mean) + HALF_LOG_2PI + 0.5).sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.mean

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.pre_action(self.resolve_noise(noise, generator))


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

    def draw_noise(self, generator: torch.Generator, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return draw_normal(self.mean, generator, sample_shape)

    def pre_action(self, noise: Tensor) -> Tensor:
        return self.mean + torch.exp(self.log_std) * noise

    def squash(self, pre_action: Tensor) -> Tensor:
        scale, centre = 0.5 * (self.high - self.low), 0.5 * (self.high + self.low)
        # The clamp takes back rounding only, which can pass a bound by a unit in the last place.
        return torch.clamp(centre + scale * torch.tanh(pre_action), self.low, self.high)

    def log_abs_det_jacobian(self, pre_action: Tensor) -> Tensor:
        """``sum_i log |d a_i / d u_i|`` ``[...]``."""
        log_slope = 2 * (math.log(2) - pre_action - F.softplus(-2 * pre_action))
        return (log_slope + torch.log(0.5 * (self.high - self.low))).sum(-1)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        gaussian = _gaussian_log_prob(pre_action, self.mean, self.log_std)
        return gaussian - self.log_abs_det_jacobian(pre_action)

    def log_prob(self, action: Tensor) -> Tensor:
        """As above, by inverting tanh: inexact at the bounds. Prefer the pre-squash action."""
        scale, centre = 0.5 * (self.high - self.low), 0.5 * (self.high + self.low)
        limit = 1 - torch.finfo(action.dtype).eps
        pre_action = torch.atanh(((action - centre) / scale).clamp(-limit, limit))
        return self.log_prob_of_pre_action(pre_action)

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


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Categorical(Distribution):
    """``softmax(logits)`` over ``K`` choices, sampled as ``argmax(logits + Gumbel noise)``.

    Args:
        logits: ``[..., K]``, not necessarily normalised.
    """

    logits: Tensor

    def draw_noise(self, generator: torch.Generator, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return draw_gumbel(self.logits, generator, sample_shape)

    def pre_action(self, noise: Tensor) -> Tensor:
        return torch.argmax(self.logits + noise, dim=-1)

    def squash(self, pre_action: Tensor) -> Tensor:
        return pre_action

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        return self.log_prob(pre_action)

    def log_prob(self, action: Tensor) -> Tensor:
        log_p = torch.log_softmax(self.logits, dim=-1)
        batch = torch.broadcast_shapes(log_p.shape[:-1], action.shape)  # type: ignore[no-untyped-call]
        index = action.long().expand(batch).unsqueeze(-1)
        return log_p.expand(*batch, -1).gather(-1, index).squeeze(-1)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``-sum_k p_k log p_k``; exact, needs no noise."""
        log_p = torch.log_softmax(self.logits, dim=-1)
        return -(log_p.exp() * log_p).sum(-1)

    @property
    def mode(self) -> Tensor:
        return torch.argmax(self.logits, dim=-1)

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Refuses: a discrete choice has no pathwise gradient.

        Raises:
            RequestError: always, with what to use instead.
        """
        raise RequestError(
            "a categorical action has no pathwise gradient: a choice does not vary smoothly with "
            "the logits. Use the score function (log_derivative_loss, agent `reinforce`)"
        )
