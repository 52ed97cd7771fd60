"""A Gaussian with a full covariance."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.base import GaussianParameters, Unsquashed
from pgtoolkit.distributions.noise import HALF_LOG_2PI, Noise


@final
@dataclasses.dataclass(frozen=True, eq=False)
class FullGaussian(Unsquashed):
    """``N(mean, L L^T)``; ``a = mean + L eps``.

    ``log p(a) = -1/2 |L^-1 (a - mean)|^2 - sum_i (log L_ii + 1/2 log 2 pi)``.

    Args:
        mean: ``[..., A]``.
        scale_tril: ``[..., A, A]``, ``L``: lower triangular with a positive diagonal; what stands
            above the diagonal is not read. Its batch is broadcast to the mean's.
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
        return log_density.sum(-1) - self.log_abs_det()

    def log_abs_det(self) -> Tensor:
        """``sum_i log L_ii`` ``[...]``."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``sum_i (log L_ii + 1/2 log(2 pi e))``; exact, needs no noise."""
        constant = self.mean.new_full(self.mean.shape, HALF_LOG_2PI + 0.5).sum(-1)
        return constant + self.log_abs_det()

    @property
    def mode(self) -> Tensor:
        return self.mean


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
