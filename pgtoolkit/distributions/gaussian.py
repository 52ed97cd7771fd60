"""Gaussians over an unbounded action: diagonal or full covariance."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution, GaussianParameters, Unsquashed
from pgtoolkit.distributions.noise import HALF_LOG_2PI, Noise


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

    @property
    def gaussian(self) -> GaussianParameters:
        return GaussianParameters(self.mean, self.log_std)

    @property
    def scale_tril(self) -> Tensor:
        """``diag(exp(log_std))`` ``[..., A, A]``, the Cholesky factor of the covariance."""
        return self.log_std.expand_as(self.mean).exp().diag_embed()

    @property
    def noise(self) -> tuple[Noise, ...]:
        return (Noise("normal", self.mean.shape[-1]),)

    @property
    def parameter(self) -> Tensor:
        return self.mean

    def pre_action(self, noise: Tensor) -> Tensor:
        return self.mean + torch.exp(self.log_std) * noise

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        return normal_log_prob(pre_action, self.mean, self.log_std).sum(-1)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``sum_i (log sigma_i + 1/2 log(2 pi e))``; exact, needs no noise."""
        return (self.log_std.expand_as(self.mean) + HALF_LOG_2PI + 0.5).sum(-1)

    def closed_form_kl_divergence(self, other: Distribution) -> Tensor | None:
        """Exact for any Gaussian of the same size.

        For another diagonal one ``sum_i (r_i^2 - 1 + d_i^2) / 2 - log r_i``, with
        ``r = std_p / std_q`` and ``d = (mean_p - mean_q) / std_q``.
        """
        if not isinstance(other, DiagonalGaussian) or not _same_size(self, other):
            return _full_kl_divergence(self, other)
        shift = (self.mean - other.mean) * torch.exp(-other.log_std)
        log_ratio = self.log_std - other.log_std
        # expm1 keeps the digits of the small divergence of nearly equal Gaussians.
        return (0.5 * (torch.expm1(2 * log_ratio) + shift.square()) - log_ratio).sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.mean


@final
@dataclasses.dataclass(frozen=True, eq=False)
class FullGaussian(Unsquashed):
    """``N(mean, L L^T)``; ``a = mean + L eps``.

    ``log p(a) = -1/2 |L^-1 (a - mean)|^2 - sum_i (log L_ii + 1/2 log 2 pi)``.

    Args:
        mean: ``[..., A]``.
        scale_tril: ``[..., A, A]``, ``L``: lower triangular with a positive diagonal. Entries above
            the diagonal are not read. Its batch shape is broadcast to the mean's.
    """

    mean: Tensor
    scale_tril: Tensor

    @property
    def noise(self) -> tuple[Noise, ...]:
        return (Noise("normal", self.mean.shape[-1]),)

    @property
    def parameter(self) -> Tensor:
        return self.mean

    def pre_action(self, noise: Tensor) -> Tensor:
        return self.mean + (self.scale_tril.tril() @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        shift = (pre_action - self.mean).unsqueeze(-1)
        standardised: Tensor = torch.linalg.solve_triangular(self.scale_tril, shift, upper=False)
        log_density = -0.5 * standardised.squeeze(-1).square() - HALF_LOG_2PI
        return log_density.sum(-1) - log_abs_det(self.scale_tril)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``sum_i (log L_ii + 1/2 log(2 pi e))``; exact, needs no noise."""
        constant = self.mean.new_full(self.mean.shape, HALF_LOG_2PI + 0.5).sum(-1)
        return constant + log_abs_det(self.scale_tril)

    def closed_form_kl_divergence(self, other: Distribution) -> Tensor | None:
        """Exact for any Gaussian of the same size.

        ``(|L_q^-1 L_p|_F^2 - A + |L_q^-1 (mean_q - mean_p)|^2) / 2 + sum_i log(L_q,ii / L_p,ii)``.
        """
        return _full_kl_divergence(self, other)

    @property
    def mode(self) -> Tensor:
        return self.mean


def normal_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """``log N(x; mean, exp(log_std)^2)``, entry by entry."""
    standardised = (x - mean) * torch.exp(-log_std)
    return -0.5 * standardised.square() - log_std - HALF_LOG_2PI


def log_abs_det(scale_tril: Tensor) -> Tensor:
    """``sum_i log L_ii`` ``[...]`` of a triangular ``L`` ``[..., A, A]``."""
    return scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _same_size(p: Unsquashed, q: Unsquashed) -> bool:
    return p.parameter.shape[-1] == q.parameter.shape[-1]


def _full_kl_divergence(p: DiagonalGaussian | FullGaussian, q: Distribution) -> Tensor | None:
    """``KL(p || q)`` of Gaussians of any covariance; None if ``q`` is none, or of another size."""
    if not isinstance(q, DiagonalGaussian | FullGaussian) or not _same_size(p, q):
        return None
    p_scale, q_scale = p.scale_tril.tril(), q.scale_tril.tril()
    shift = (q.mean - p.mean).unsqueeze(-1)
    ratio: Tensor = torch.linalg.solve_triangular(q_scale, p_scale, upper=False)
    standardised: Tensor = torch.linalg.solve_triangular(q_scale, shift, upper=False)
    squares = ratio.square().sum((-2, -1)) + standardised.squeeze(-1).square().sum(-1)
    return 0.5 * (squares - p.mean.shape[-1]) + log_abs_det(q_scale) - log_abs_det(p_scale)


def gaussian_of(distribution: Distribution) -> GaussianParameters:
    """Mean and log standard deviation ``[..., A]`` of the pre-action."""
    assert distribution.gaussian is not None
    mean, log_std = distribution.gaussian
    return GaussianParameters(mean, log_std.expand_as(mean))


def gaussian_kl(old: GaussianParameters, new: GaussianParameters) -> Tensor:
    """``KL(old || new)`` ``[...]``, exact; the same before and after squashing."""
    divergence = DiagonalGaussian(*old).closed_form_kl_divergence(DiagonalGaussian(*new))
    assert divergence is not None
    return divergence
