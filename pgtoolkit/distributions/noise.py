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
    """The law of some entries of a sample's standard noise, and how many entries have it."""

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
        noise: the parts that are joined along the last axis.
        batch: the leading axes.
        generator: the source of all randomness.
        dtype: None means torch's default.
    """
    # Drawn from the last part to the first: the random numbers of a seed depend on it.
    parts = [DRAW[part.kind]((*batch, part.size), generator, dtype) for part in reversed(noise)]
    return parts[0] if len(parts) == 1 else torch.cat(parts[::-1], -1)


def _draw_normal(shape: Shape, generator: torch.Generator, dtype: torch.dtype | None) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)


def _draw_gumbel(shape: Shape, generator: torch.Generator, dtype: torch.dtype | None) -> Tensor:
    """Minus the logarithm of an exponential variable."""
    exponential = torch.empty(shape, device=generator.device, dtype=dtype)
    return -torch.log(exponential.exponential_(generator=generator))


def _draw_logistic(shape: Shape, generator: torch.Generator, dtype: torch.dtype | None) -> Tensor:
    """The difference of two Gumbel variables."""
    first = _draw_gumbel(shape, generator, dtype)
    return first - _draw_gumbel(shape, generator, dtype)


DRAW = {"normal": _draw_normal, "gumbel": _draw_gumbel, "logistic": _draw_logistic}


def antithetic(noise: Tensor) -> Tensor:
    """``[num_samples, ...]`` to ``[2 num_samples, ...]``: all noise, then all with its sign turned.

    The mean of a pair's estimates is unbiased if the noise's law is symmetric about 0 (normal,
    logistic; not Gumbel). What is odd in the noise cancels: for a linear ``f`` the pathwise
    gradient by the mean has no variance left. What is even is only repeated, and then a pair is
    worth one sample. The pairs are independent, their halves are not: measure the variance of
    ``estimates.reshape(2, -1).mean(0)``.
    """
    return torch.cat([noise, -noise])
