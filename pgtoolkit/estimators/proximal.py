"""PPO's clipped surrogate and standardised advantages (Schulman et al. 2017)."""

import torch
from torch import Tensor

from pgtoolkit.shapes import check_same_shape


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float
) -> Tensor:
    """``min(rho A, clip(rho, 1 - c, 1 + c) A)`` ``[M]``, which a step increases (eq. 7).

    ``rho = exp(log pi - log pi_old)``. The gradient is 0 where the clipped term is the smaller one
    and the clip is active. At ``rho = 1`` it is that of the score function, ``A grad log pi``.

    Args:
        log_prob: ``[M]`` under the current policy, with its graph.
        old_log_prob: ``[M]`` at collection time.
        advantage: ``[M]``.
        clip_range: ``c``.
    """
    check_same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.minimum(ratio * advantage, clipped * advantage)


def standardized(advantage: Tensor) -> Tensor:
    """``(A - mean A) / (std A + 1e-8)`` ``[M]`` with the unbiased standard deviation.

    A single advantage has no standard deviation, and is replaced by 0.
    """
    mean, scale = mean_and_scale(advantage)
    return (advantage - mean) / scale


def mean_and_scale(advantage: Tensor) -> tuple[Tensor, Tensor]:
    """``mean A`` and ``std A + 1e-8`` of advantages ``[M]``, scalars; the scale of one is 1."""
    mean = advantage.mean()
    return mean, torch.ones_like(mean) if len(advantage) == 1 else advantage.std() + 1e-8
