"""Vector lengths that are differentiable at 0, and vectors of bounded length."""

import torch
from torch import Tensor


def smooth_length(vector: Tensor, radius: float) -> Tensor:
    """``sqrt(|v|^2 + radius^2) - radius`` ``[..., 1]``: the length, made differentiable at 0.

    About ``|v|^2 / (2 radius)`` for short vectors, and ``|v| - radius`` for long ones.

    Args:
        vector: ``v`` ``[..., D]``.
        radius: positive, in the vector's unit.
    """
    return torch.sqrt(vector.square().sum(-1, keepdim=True) + radius**2) - radius


def soft_clip_length(vector: Tensor, longest: float) -> Tensor:
    """``v / sqrt(1 + |v|^2 / longest^2)`` ``[..., D]``: a smooth bound on the length.

    Short vectors hardly change. It is for observations of unbounded states, where one environment
    that flies off would dominate the running mean and variance of all. The map can be inverted, so
    no information is lost.

    Args:
        vector: ``v`` ``[..., D]``.
        longest: the bound on the result's length.
    """
    return vector / torch.sqrt(1 + vector.square().sum(-1, keepdim=True) / longest**2)
