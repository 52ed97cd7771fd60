"""Surrogates of the probability ratio, PPO's and SPO's, and standardised advantages."""

import math

import torch
from torch import Tensor

from pgtoolkit.shapes import check_same_shape

MAX_LOG_RATIO = 20.0
"""Logarithm of the largest probability ratio, 4.9e8, where the dtype can hold its square."""


def probability_ratio(log_ratio: Tensor) -> Tensor:
    """``exp(log_ratio)`` ``[...]``, limited to ``exp(20)``, where it still has a gradient.

    Without the limit the ratio overflows (in float32 from a logarithm of 88.7), and its gradient is
    NaN even where PPO's clip replaces it, because 0 times infinity is. Beyond the limit the ratio
    is constant, and its derivative by ``log_ratio`` is that of the limit, ``exp(20)``: a ratio that
    must become smaller is still pushed down. A ratio too small for the dtype is 0.

    Args:
        log_ratio: ``log pi - log pi_old``. In dtypes whose largest number is below ``exp(40)`` the
            limit is the square root of that number.
    """
    largest = min(MAX_LOG_RATIO, 0.5 * math.log(torch.finfo(log_ratio.dtype).max))
    beyond = largest + (log_ratio - log_ratio.detach())
    return torch.where(log_ratio > largest, beyond, log_ratio).exp()


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """``mean(rho - 1 - log rho)``, an estimate of ``KL(pi_old, pi)`` (Schulman 2020), a scalar.

    Args:
        log_ratio: ``log pi - log pi_old`` ``[M]`` of actions that ``pi_old`` took; the ratio
            ``rho`` is limited as in :func:`probability_ratio`.
    """
    return (probability_ratio(log_ratio) - 1 - log_ratio).mean()


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float
) -> Tensor:
    """``min(rho A, clip(rho, 1 - c, 1 + c) A)`` ``[M]``, which a step increases.

    Schulman et al. (2017), eq. 7.

    ``rho = exp(log pi - log pi_old)``, limited as in :func:`probability_ratio`. The gradient is 0
    where the clipped term is the smaller one and the clip is active. At ``rho = 1`` it is that of
    the score function, ``A grad log pi``.

    Args:
        log_prob: ``[M]`` under the current policy, with its graph.
        old_log_prob: ``[M]`` at collection time.
        advantage: ``[M]``.
        clip_range: ``c``.
    """
    check_same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    ratio = probability_ratio(log_prob - old_log_prob)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.minimum(ratio * advantage, clipped * advantage)


def simple_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float
) -> Tensor:
    """``rho A - |A| (rho - 1)^2 / (2 c)`` ``[M]``, which a step increases (Xie et al. 2025, SPO).

    It is greatest at the edge of PPO's clip, ``rho = 1 + c sign A``, and pulls a ratio beyond the
    edge back, where the gradient of the clip is 0. At ``rho = 1`` the gradient is that of the score
    function. The arguments are those of :func:`clipped_surrogate`.
    """
    check_same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    ratio = probability_ratio(log_prob - old_log_prob)
    return ratio * advantage - advantage.abs() * (ratio - 1).square() / (2 * clip_range)


SURROGATES = {"clip": clipped_surrogate, "spo": simple_surrogate}
"""The surrogate of the probability ratio by its name."""


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
