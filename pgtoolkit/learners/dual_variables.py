"""Lagrange multipliers of the bounds on a policy's entropy and divergence, and how they move."""

import math
from typing import final

import torch
from torch import Tensor, nn

ENTROPY_TOLERANCE = 0.1
"""Nats for each action dimension between the entropy and its target from which on the learned part
of ``alpha`` moves at its full speed; nearer, it moves more slowly in proportion."""


@final
class Duals(nn.Module):
    """The Lagrange multipliers of the entropy and of the divergence, ``beta``; positive.

    That of the entropy, ``alpha``, has a learned part; :func:`present_alpha` has the rest.

    Args:
        alpha: initial value.
        beta: initial value.

    Attributes:
        temperature: ``alpha`` in the soft rewards of the last update.
    """

    temperature: Tensor

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha)))
        self.log_beta = nn.Parameter(torch.tensor(math.log(beta)))
        self.register_buffer("temperature", torch.tensor(alpha))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.log_alpha.exp(), self.log_beta.exp()


def mean_excess(entropy: Tensor, target: float, action_size: int) -> Tensor:
    """The mean entropy less its target, in nats for each action dimension; a constant."""
    return (entropy.detach().mean() - target) / action_size


def present_alpha(alpha: Tensor, excess: Tensor, gain: float) -> Tensor:
    """The weight of the entropy, ``alpha exp(-gain clamp(excess, -1, 1))``, from its learned part.

    This is the proportional part of a controller, of which ``alpha`` is the integral one (Stooke et
    al. 2020, on Lagrange multipliers). The entropy follows its weight with a delay; a weight that
    only sums up the error passes the value at which the entropy stands still, and swings.

    Args:
        alpha: the learned part.
        excess: the entropy less its target, in nats for each action dimension.
        gain: nats for each of these; 0 for the learned part alone.
    """
    return alpha * torch.exp(-gain * excess.clamp(-1.0, 1.0))


def alpha_speed(excess: Tensor, kl_share: Tensor | float) -> Tensor:
    """How fast ``alpha``'s learned part falls, from -1 to 1, in learning rates on a minibatch.

    It is ``clamp(excess / 0.1, -1, 1) sqrt(kl_share)``, for its logarithm. The entropy follows
    ``alpha`` with a delay. With Adam, whose steps are as long for a small error as for a large one,
    ``alpha`` passes the value at which the entropy stands still, and swings about it over orders of
    magnitude. And a step within a bound of the divergence changes the entropy by its root, so that
    the entropy, and its delay, slow down as the bound falls.

    Args:
        excess: the entropy less its target, in nats for each action dimension.
        kl_share: the bound of the divergence in parts of that which the run began with.
    """
    share = torch.as_tensor(kl_share, dtype=excess.dtype, device=excess.device)
    return (excess / ENTROPY_TOLERANCE).clamp(-1.0, 1.0) * share.sqrt()
