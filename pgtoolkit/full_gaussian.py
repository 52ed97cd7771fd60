"""A Gaussian with a full covariance."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.standard_noise import HALF_LOG_2PI, draw_normal
from pgtoolkit.unsquashed import Unsquashed


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

    def draw_noise(self, generator: torch.Generator, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return draw_normal(self.mean, generator, sample_shape)

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
