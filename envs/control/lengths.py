"""Lengths without the kink at 0, and vectors that never grow long."""

import torch
from torch import Tensor


def rounded_length(vector: Tensor, radius: float) -> Tensor:
    """``sqrt(|v|^2 + radius^2) - radius`` ``[..., 1]``: 0 at 0, and smooth there.

    Quadratic within the radius, ``|v|^2 / (2 radius)``; beyond, the length less the radius.

    Args:
        vector: ``v`` ``[..., D]``.
        radius: positive, in the vector's unit.
    """
    return torch.sqrt(vector.square().sum(-1, keepdim=True) + radius**2) - radius


def shortened(vector: Tensor, longest: float) -> Tensor:
    """``v / sqrt(1 + |v|^2 / longest^2)`` ``[..., D]``: hardly changed if short, never longer.

    For observations of states that may run away: one that flies off would spoil a running mean and
    variance for all, and none is lost, for the map can be inverted.

    Args:
        vector: ``v`` ``[..., D]``.
        longest: the bound on the result's length.
    """
    return vector / torch.sqrt(1 + vector.square().sum(-1, keepdim=True) / longest**2)
