"""Standard noise, drawn from an explicit generator."""

import math

import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def draw_normal(like: Tensor, generator: torch.Generator, sample_shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise ``[*sample_shape, *like.shape]``, of its dtype, on its device."""
    shape = (*sample_shape, *like.shape)
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def draw_gumbel(like: Tensor, generator: torch.Generator, sample_shape: tuple[int, ...]) -> Tensor:
    """Standard Gumbel noise: minus the logarithm of an exponential variable is one."""
    shape = (*sample_shape, *like.shape)
    exponential = torch.empty(shape, device=like.device, dtype=like.dtype)
    return -torch.log(exponential.exponential_(generator=generator))


def draw_logistic(
    like: Tensor, generator: torch.Generator, sample_shape: tuple[int, ...]
) -> Tensor:
    """Standard logistic noise: the difference of two Gumbel variables is one."""
    first = draw_gumbel(like, generator, sample_shape)
    return first - draw_gumbel(like, generator, sample_shape)
