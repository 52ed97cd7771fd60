"""Baselines of the score function: what is subtracted from a return without biasing the gradient.

*None* is zero. *Leave-one-out* and the *optimal constant* are below. The *learned value* is in
:mod:`pgtoolkit.networks.value`. Any of them may raise the variance, except the optimal one: the
mean return, the usual choice, does so where ``f`` and the squared score are far from independent.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.shapes import check_same_shape, check_shape

Baseline = float | Tensor | Literal["leave_one_out"]


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


def baseline_value(baseline: Baseline, value: Tensor) -> Tensor:
    """A baseline ``[num_samples, *batch]`` for samples with these values; without a graph.

    Args:
        baseline: a number, a tensor that broadcasts to ``value``, or ``"leave_one_out"``: the mean
            of the other samples' values.
        value: ``[num_samples, *batch]``.

    Raises:
        RequestError: there is no such baseline, or one sample has no others.
        ValueError: the tensor does not broadcast.
    """
    require_baseline(baseline)
    if isinstance(baseline, str):
        if value.shape[0] < 2:
            raise RequestError("leave_one_out needs at least 2 samples: there are no others")
        return (value.sum(0, keepdim=True) - value) / (value.shape[0] - 1)
    constant = torch.as_tensor(baseline, dtype=value.dtype, device=value.device).detach()
    try:
        return constant.expand_as(value)
    except RuntimeError as error:
        raise ValueError(
            f"the baseline {list(constant.shape)} does not fit f's values {list(value.shape)}"
        ) from error


def require_baseline(baseline: Baseline) -> None:
    """Raises unless it is a number, a tensor or ``"leave_one_out"``.

    Raises:
        RequestError: it is something else.
    """
    if not isinstance(baseline, int | float | Tensor) and baseline != "leave_one_out":
        raise RequestError(
            f"there is no baseline {baseline!r}: give a number, a tensor or 'leave_one_out'"
        )


def optimal_baseline(
    value: Tensor, score: Mapping[str, Tensor], weight: Tensor | None = None
) -> Tensor:
    """The constant of least variance, ``b* = E[f |S|^2] / E[|S|^2]``, a scalar in float64.

    ``S`` is the score of all parameters together; a single parameter has an optimum of its own.
    The trace of the variance falls from that without a baseline by ``E[f |S|^2]^2 / E[|S|^2]``
    (Greensmith et al. 2004). Exact from quadrature nodes or from an enumeration, with their
    weights. From a sample it is an estimate, and biases the gradient of that very sample: use it on
    another.

    Args:
        value: ``[N]`` of ``f``.
        score: ``{parameter: [N, *shape]}``, derivatives of the log density.
        weight: ``[N]`` that sum to 1; None weighs all alike.
    """
    check_shape("value", value, None)
    squares = torch.stack(
        [s.double().reshape(len(value), -1).square().sum(1) for s in score.values()]
    ).sum(0)
    if weight is not None:
        check_same_shape(value=value, weight=weight)
    weighted = squares if weight is None else squares * weight.double()
    return (weighted * value.double()).sum() / weighted.sum()
