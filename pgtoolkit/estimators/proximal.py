"""The equations of PPO, each a function of one minibatch (Schulman et al. 2017)."""

from typing import NamedTuple, final

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


@final
class PpoTerms(NamedTuple):
    """The parts of one minibatch's loss, scalars."""

    loss: Tensor
    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    approx_kl: Tensor
    """``mean(rho - 1 - log rho)``, an estimate of ``KL(pi_old, pi)`` (Schulman 2020)."""
    clip_fraction: Tensor
    """Share of the samples whose ratio lies beyond the clip."""


def ppo_terms(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    value: Tensor,
    target: Tensor,
    entropy: Tensor,
    *,
    clip_range: float,
    vf_coef: float,
    ent_coef: float,
) -> PpoTerms:
    """``-mean(surrogate) + vf_coef * mean((V - G)^2) - ent_coef * mean(H)`` (eq. 9).

    Args:
        log_prob: ``[M]``.
        old_log_prob: ``[M]``.
        advantage: ``[M]``.
        value: ``[M]`` of the observations.
        target: ``[M]`` the returns that the value function is fitted to.
        entropy: ``[M]``.
        clip_range: of the ratio.
        vf_coef: weight of the value loss.
        ent_coef: weight of the entropy.
    """
    policy_loss = -clipped_surrogate(log_prob, old_log_prob, advantage, clip_range).mean()
    value_loss = (value - target).square().mean()
    mean_entropy = entropy.mean()
    loss = policy_loss + vf_coef * value_loss - ent_coef * mean_entropy
    log_ratio = (log_prob - old_log_prob).detach()
    ratio = log_ratio.exp()
    return PpoTerms(
        loss=loss,
        policy_loss=policy_loss.detach(),
        value_loss=value_loss.detach(),
        entropy=mean_entropy.detach(),
        approx_kl=(ratio - 1 - log_ratio).mean(),
        clip_fraction=((ratio - 1).abs() > clip_range).to(ratio.dtype).mean(),
    )
