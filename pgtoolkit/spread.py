"""How per-trajectory gradients spread about their mean: the sums that all statistics come from."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Self, final

import torch
from torch import Tensor

NORMAL_95 = 1.959963984540054
BLOCK = 64
"""Trajectories whose Gram matrix is taken at once: with all, it would cost more than the rest."""
COLUMNS = 256
"""Parameters taken at once: in float64 they then stay in the processor's cache."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Spread:
    """Sums over parameters, taken one tensor at a time: nothing of size ``N P`` is kept."""

    squared_mean: Tensor
    """``|m|^2``."""
    along: Tensor
    """``c_i . m`` ``[N]``."""
    by_parameter: dict[str, Tensor]
    """``|c_i|^2`` ``[N]`` of each parameter."""
    squared_covariance: Tensor
    """``Q``."""

    @property
    def squares(self) -> Tensor:
        """``|c_i|^2`` ``[N]``."""
        return torch.stack([*self.by_parameter.values()]).sum(0)

    @classmethod
    def of(cls, gradients: Mapping[str, Tensor]) -> Self:
        size = len(next(iter(gradients.values())))
        zero = torch.zeros((), dtype=torch.float64, device=next(iter(gradients.values())).device)
        squared_mean, along = zero, zero.expand(size)
        by_parameter, blocks = {}, math.ceil(size / BLOCK)
        grams = [zero] * blocks
        for name, gradient in gradients.items():
            squares = zero.expand(size)
            for part in gradient.reshape(size, -1).split(COLUMNS, dim=1):  # type: ignore[no-untyped-call]
                centred = part.double()
                mean = centred.mean(0)
                centred = centred - mean
                squared_mean = squared_mean + mean @ mean
                along = along + centred @ mean
                squares = squares + torch.linalg.vecdot(centred, centred)
                own = (rows @ rows.T for rows in centred.tensor_split(blocks))
                grams = [gram + more for gram, more in zip(grams, own, strict=True)]
            by_parameter[name] = squares
        found = [squared_covariance_of(gram) for gram in grams]
        return cls(squared_mean, along, by_parameter, torch.stack(found).mean())


def jackknife(
    spread: Spread, variance: Tensor, signal: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """95 % intervals: of the variance on its logarithm, and of the signal.

    Without trajectory ``i`` the mean is ``m - c_i / (N - 1)``, and the squares add up to
    ``sum_j |c_j|^2 - N / (N - 1) |c_i|^2``.
    """
    squares = spread.squares
    n = len(squares)
    variances = (squares.sum() - n / (n - 1) * squares) / (n - 2)
    means = spread.squared_mean - 2 * spread.along / (n - 1) + squares / (n - 1) ** 2
    signals = means - variances / (n - 1)
    # Rounding apart, a spread that one trajectory makes up alone leaves nothing without it.
    if not bool((variances > 1e-12 * variance).all()):
        # All trajectories agree but for at most one: the logarithm has no jackknife.
        low, high = torch.zeros_like(variance), torch.maximum(variance, variances.max())
    else:
        half = NORMAL_95 * math.sqrt(n - 1) * variances.log().std(unbiased=False)
        low, high = variance * (-half).exp(), variance * half.exp()
    half_signal = NORMAL_95 * math.sqrt(n - 1) * signals.std(unbiased=False)
    return low, high, signal - half_signal, signal + half_signal


def squared_covariance_of(gram: Tensor) -> Tensor:
    """``Q`` of one block of ``n`` trajectories, from their Gram matrix."""
    n = gram.shape[0]
    centred = gram - gram.mean(0, keepdim=True) - gram.mean(1, keepdim=True) + gram.mean()
    variance = centred.trace() / (n - 1)
    plug_in = centred.square().sum() / (n - 1) ** 2
    return (n - 1) ** 2 / ((n - 2) * (n + 1)) * (plug_in - variance.square() / (n - 1))
