"""The proximal surrogate of PPO, and its advantages (Schulman et al. 2017)."""

import torch
from torch import Tensor

from pgtoolkit.shapes import check_same_shape


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float
) -> Tensor:
    """``min(rho A, clip(rho, 1 - c, 1 + c) A)`` ``[M]``, to be climbed (eq. 7).

    ``rho = exp(log pi - log pi_old)``. Where the clip is active and the minimum takes it, the
    gradient is 0; at ``rho = 1`` it is that of the score function, ``A grad log pi``.

    Args:
        log_prob: ``[M]`` of the policy now, with its graph.
        old_log_prob: ``[M]`` when the action was taken.
        advantage: ``[M]``.
        clip_range: ``c``.
    """
    check_same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.minimum(ratio * advantage, clipped * advantage)


def standardized(advantage: Tensor) -> Tensor:
    """Advantages ``[M]`` less their mean, over their standard deviation (unbiased) and 1e-8.

    One alone has no standard deviation, and is 0.
    """
    if len(advantage) == 1:
        return torch.zeros_like(advantage)
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)
