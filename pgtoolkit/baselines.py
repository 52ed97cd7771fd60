"""Baselines of the score function: what is subtracted from a return without biasing the gradient.

*None* is zero. *Leave-one-out* is below. The *learned value* is in :mod:`pgtoolkit.value_function`.
"""

import torch
from torch import Tensor

from pgtoolkit.shapes import check_same_shape


def leave_one_out(returns: Tensor, valid: Tensor) -> Tensor:
    """The mean return of the *other* trajectories at the same step ``[T, N]`` (Kool et al. 2019).

    ``b_{t,i} = sum_{j != i} valid_{t,j} G_{t,j} / sum_{j != i} valid_{t,j}``, and 0 where there is
    no other. It does not depend on trajectory ``i``, so it is unbiased, unlike the batch mean,
    which shrinks the gradient by ``1/N``. It makes the trajectories' gradients dependent, though:
    their spread is then not exactly ``N`` times the update's variance.

    Args:
        returns: ``[T, N]``.
        valid: ``[T, N]`` bool.
    """
    check_same_shape(returns=returns, valid=valid)
    weight = valid.to(returns.dtype)
    masked = torch.where(valid, returns, torch.zeros_like(returns))
    others = weight.sum(1, keepdim=True) - weight
    total = masked.sum(1, keepdim=True) - masked
    return torch.where(others > 0, total / others.clamp_min(1), torch.zeros_like(total))
