"""Standard noise, drawn from an explicit generator."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

Shape = tuple[int, ...]
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@final
class Noise(NamedTuple):
    """A number of independent entries of standard noise of one kind."""

    kind: Literal["normal", "gumbel", "logistic"]
    size: int


def draw_noise(
    noise: Sequence[Noise],
    batch: tuple[int, ...],
    generator: torch.Generator,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draws standard noise ``[*batch, total size]`` on the generator's device.

    Args:
        noise: the parts, concatenated along the last axis.
        batch: sizes of the leading axes.
        generator: the source of all randomness.
        dtype: None means torch's default.
    """
    # From the last part to the first: another order would change the numbers that a seed gives.
    parts = [SAMPLERS[part.kind]((*batch, part.size), generator, dtype) for part in reversed(noise)]
    return parts[0] if len(parts) == 1 else torch.cat(parts[::-1], -1)


def _draw_normal(shape: Shape, generator: torch.Generator, dtype: torch.dtype | None) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)


def _draw_gumbel(shape: Shape, generator: torch.Generator, dtype: torch.dtype | None) -> Tensor:
    """Draws minus the logarithm of exponential variables."""
    exponential = torch.empty(shape, device=generator.device, dtype=dtype)
    return -torch.log(exponential.exponential_(generator=generator))


def _draw_logistic(shape: Shape, generator: torch.Generator, dtype: torch.dtype | None) -> Tensor:
    """Draws differences of two Gumbel variables."""
    first = _draw_gumbel(shape, generator, dtype)
    return first - _draw_gumbel(shape, generator, dtype)


SAMPLERS = {"normal": _draw_normal, "gumbel": _draw_gumbel, "logistic": _draw_logistic}


def antithetic(noise: Tensor) -> Tensor:
    """Antithetic pairs: ``noise`` followed by ``-noise``, ``[2 num_samples, ...]``.

    The mean of a pair's two estimates is unbiased if the noise is symmetric about 0 (normal and
    logistic, not Gumbel). The part of an estimate that is odd in the noise cancels: for a linear
    ``f`` the pathwise gradient by the mean has no variance left. The even part is the same in both
    halves: if there is no odd part, a pair is worth one sample. Pairs are independent of each
    other, their halves are not, so measure the variance of ``estimates.reshape(2, -1).mean(0)``.

    Args:
        noise: ``[num_samples, ...]``.
    """
    return torch.cat([noise, -noise])
