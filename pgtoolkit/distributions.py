"""Distributions over actions, as values: Gaussian, tanh-squashed Gaussian, categorical."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.discrete import Discrete, categorical_entropy, categorical_log_prob, expand_support
from pgtoolkit.distribution import Distribution
from pgtoolkit.squashed import tanh_log_abs_det_jacobian, tanh_squash, tanh_unsquash
from pgtoolkit.standard_noise import HALF_LOG_2PI as HALF_LOG_2PI
from pgtoolkit.standard_noise import draw_gumbel as draw_gumbel
from pgtoolkit.standard_noise import draw_normal as draw_normal
from pgtoolkit.unsquashed import Unsquashed


def _gaussian_log_prob(value: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    standardised = (value - mean) * torch.exp(-log_std)
    return (-0.5 * standardised.square() - log_std - HALF_LOG_2PI).sum(-1)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalGaussian(Unsquashed):
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

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        return _gaussian_log_prob(pre_action, self.mean, self.log_std)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``sum_i (log sigma_i + 1/2 log(2 pi e))``; exact, needs no noise."""
        return (self.log_std.expand_as(self.mean) + HALF_LOG_2PI + 0.5).sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.mean


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


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Categorical(Discrete):
    """``softmax(logits)`` over ``K`` choices, sampled as ``argmax(logits + Gumbel noise)``.

    Args:
        logits: ``[..., K]``, not necessarily normalised.
    """

    logits: Tensor

    def draw_noise(self, generator: torch.Generator, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return draw_gumbel(self.logits, generator, sample_shape)

    def pre_action(self, noise: Tensor) -> Tensor:
        return torch.argmax(self.logits + noise, dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return categorical_log_prob(self.logits, action)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``-sum_k p_k log p_k``; exact, needs no noise."""
        return categorical_entropy(self.logits)

    @property
    def mode(self) -> Tensor:
        return torch.argmax(self.logits, dim=-1)

    def enumerate_support(self) -> Tensor:
        """``[K, ...]``."""
        rows = torch.arange(self.logits.shape[-1], device=self.logits.device)
        return expand_support(rows, self.logits)
