"""Normalisation of observations by their running mean and variance."""

from types import MappingProxyType
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn


@final
class Moments(NamedTuple):
    """Size, mean and summed squared deviations of a sample of vectors."""

    size: Tensor | int
    mean: Tensor
    """``[D]``."""
    scatter: Tensor
    """``sum_n (x_n - mean)^2`` ``[D]``, or with outer products ``[D, D]``."""

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both samples together (parallel variance, Chan et al. 1979)."""
        size = self.size + other.size
        shift = other.mean - self.mean
        squares = shift.square() if self.scatter.dim() == shift.dim() else torch.outer(shift, shift)
        scatter = self.scatter + other.scatter + squares * self.size * other.size / size
        return Moments(size, self.mean + shift * other.size / size, scatter)


SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def exact_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """float32 if it holds every number of the dtype exactly, as of int16; else float64."""
    return SINGLE if np.can_cast(dtype, SINGLE) else DOUBLE


class ObservationNormalizer(nn.Module):
    """``clip((obs - mean) / sqrt(variance + 1e-8), -limit, limit)`` with running moments.

    The difference is computed in the observations' dtype, and only the result is cast to the dtype
    of the parameters: float32 cannot tell 1.7e9 from 1.7e9 + 1, and their normalised values it can.

    Calling it does not change the moments, so that they are constant within a window; ``update``
    adds a window's observations after the update that used the window. The moments are float64, so
    that they do not drift over millions of steps. Before the first update the module only clips.

    Args:
        size: ``O``, the number of entries of an observation.
        limit: largest absolute value of a normalised entry.
        input_dtype: the dtype in which rollouts keep NumPy observations for this module.
        unscaled: ``(start, stop)`` of entries whose mean stays 0 and variance 1.
    """

    state_minima = MappingProxyType({"variance": 0.0, "count": 0.0})
    """Least values that a saved state may have."""
    mean: Tensor
    variance: Tensor
    count: Tensor
    unit: Tensor

    def __init__(
        self,
        size: int,
        limit: float = 10.0,
        *,
        input_dtype: np.dtype[Any] = SINGLE,
        unscaled: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.limit, self.input_dtype = limit, input_dtype
        self.unscaled = slice(0, 0) if unscaled is None else slice(*unscaled)
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        # Has the dtype of the policy's parameters, also after policy.double().
        self.register_buffer("unit", torch.ones(()), persistent=False)

    @property
    def output_dtype(self) -> torch.dtype:
        """The dtype of the normalised observations, which is that of the policy's parameters."""
        return self.unit.dtype

    def forward(self, obs: Tensor) -> Tensor:
        # A replay buffer keeps those of a space of bytes as bytes.
        obs = obs if obs.is_floating_point() else obs.to(self.output_dtype)
        mean, scale = self.mean.to(obs.dtype), torch.rsqrt(self.variance + 1e-8).to(obs.dtype)
        return ((obs - mean) * scale).clamp(-self.limit, self.limit).to(self.output_dtype)

    @torch.no_grad()
    def update(self, obs: Tensor, mask: Tensor) -> None:
        """Adds the rows of ``obs`` ``[T, N, O]`` where ``mask`` ``[T, N]`` is true."""
        rows = obs[mask].double()
        count = rows.shape[0]
        if count == 0:
            return
        old = Moments(self.count, self.mean, self.variance * self.count)
        new = Moments(count, rows.mean(0), rows.var(0, unbiased=False) * count)
        merged = old.merge(new)
        assert isinstance(merged.size, Tensor)
        # Buffers are replaced, not written in place: a graph may still refer to the old ones.
        self.mean, self.variance = merged.mean, merged.scatter / merged.size
        self.count = merged.size
        self.mean[self.unscaled], self.variance[self.unscaled] = 0.0, 1.0


class NoNormalizer(nn.Module):
    """Returns observations unchanged, in the dtype of the policy's parameters."""

    input_dtype = SINGLE
    """The dtype in which rollouts keep NumPy observations for this module."""
    unit: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Has the dtype of the policy's parameters, also after policy.double().
        self.register_buffer("unit", torch.ones(()), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        return obs.to(self.unit.dtype)

    def update(self, obs: Tensor, mask: Tensor) -> None:
        """Does nothing: there are no moments to update."""
