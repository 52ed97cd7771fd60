"""How an objective and the divergence from an old policy make one loss (Voelcker et al. 2025)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

KLConstraint = Literal["penalty", "mask"]
Constraint = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps objective ``[M]``, ``beta KL`` ``[M]`` and ``KL < bound`` ``[M]`` to the loss ``[M]``."""


def penalised(objective: Tensor, penalty: Tensor, within: Tensor) -> Tensor:
    """``beta KL - (S + alpha H)`` ``[M]`` at all states: a bound of the mean divergence."""
    return penalty - objective


def masked(objective: Tensor, penalty: Tensor, within: Tensor) -> Tensor:
    """``-(S + alpha H)`` ``[M]`` at states within the bound, and ``beta KL`` at those beyond it.

    The loss of the paper (Voelcker et al. 2025). At a state beyond the bound nothing but ``beta``
    holds the objective's slope at other states, which moves the same parameters.
    """
    return torch.where(within, -objective, penalty)


CONSTRAINTS: dict[KLConstraint, Constraint] = {"penalty": penalised, "mask": masked}
