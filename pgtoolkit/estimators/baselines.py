"""Baselines of the score function: subtracted from a return, they do not bias the gradient.

The *leave-one-out* baseline and the *optimal constant* are in this module, a *learned value* is in
:mod:`pgtoolkit.networks.value`. Every baseline but the optimal one may increase the variance. The
mean return, the usual choice, does so if the return and the squared score are far from independent.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.shapes import check_same_shape, check_shape

Baseline = float | Tensor | Literal["leave_one_out"]
"""A constant, a tensor that broadcasts to the values, or the mean of the other samples."""


def leave_one_out(returns: Tensor, valid: Tensor) -> Tensor:
    """The mean return of the *other* trajectories at the same step ``[T, N]`` (Kool et al. 2019).

    ``b_{t,i} = sum_{j != i} valid_{t,j} G_{t,j} / sum_{j != i} valid_{t,j}``, and 0 where no other
    trajectory is valid. It does not depend on trajectory ``i``, so the gradient stays unbiased; the
    mean of the whole batch would shrink it by ``1/N``. It makes the trajectories' gradients
    dependent, so their sample variance is not exactly ``N`` times the variance of the update.

    Args:
        returns: ``[T, N]``.
        valid: ``[T, N]`` bool, the steps that count.
    """
    check_same_shape(returns=returns, valid=valid)
    weight = valid.to(returns.dtype)
    masked = torch.where(valid, returns, torch.zeros_like(returns))
    others = weight.sum(1, keepdim=True) - weight
    total = masked.sum(1, keepdim=True) - masked
    return torch.where(others > 0, total / others.clamp_min(1), torch.zeros_like(total))


def baseline_value(baseline: Baseline, value: Tensor) -> Tensor:
    """The baseline of each sample ``[num_samples, *batch]``, without a graph.

    Args:
        baseline: a number, a tensor that broadcasts to ``value``, or ``"leave_one_out"``: the mean
            of the other samples' values.
        value: ``f`` at the samples ``[num_samples, *batch]``.

    Raises:
        RequestError: the baseline is of no known kind, or ``"leave_one_out"`` with one sample.
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
        RequestError: it is none of these.
    """
    if not isinstance(baseline, int | float | Tensor) and baseline != "leave_one_out":
        raise RequestError(
            f"there is no baseline {baseline!r}: give a number, a tensor or 'leave_one_out'"
        )


def optimal_baseline(
    value: Tensor, score: Mapping[str, Tensor], weight: Tensor | None = None
) -> Tensor:
    """The constant with the least variance, ``b* = E[f |S|^2] / E[|S|^2]``, a scalar in float64.

    ``S`` is the score of all parameters together; the optimum for a single parameter differs. The
    trace of the covariance is smaller by ``E[f |S|^2]^2 / E[|S|^2]`` than without a baseline
    (Greensmith et al. 2004).

    The result is exact for quadrature nodes or an enumeration, with their weights. From a sample it
    is an estimate that would bias the gradient of the same sample, so use it on another one.

    Args:
        value: ``f`` at each sample ``[N]``.
        score: ``{parameter: [N, *shape]}``, derivatives of the log density.
        weight: probabilities ``[N]`` that sum to 1; None means equal ones.
    """
    check_shape("value", value, None)
    squares = torch.stack(
        [s.double().reshape(len(value), -1).square().sum(1) for s in score.values()]
    ).sum(0)
    if weight is not None:
        check_same_shape(value=value, weight=weight)
    weighted = squares if weight is None else squares * weight.double()
    return (weighted * value.double()).sum() / weighted.sum()
