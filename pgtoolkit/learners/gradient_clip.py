"""Clipping and schedules: what happens between a gradient and a step."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from pgtoolkit.errors import NonFiniteError

Schedule = Literal["linear", "constant"]


def clip_gradient(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Rescales the gradients to a global norm of at most ``max_norm``; returns the norm before."""
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def require_finite_gradient(module: nn.Module) -> None:
    """Raises if any parameter's gradient is not finite, naming the parameter.

    Raises:
        NonFiniteError: names the parameter.
    """
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            raise NonFiniteError(f"gradient of {name}")


def scheduled_learning_rate(initial: float, schedule: Schedule, progress: float) -> float:
    """``initial`` throughout, or falling linearly to a hundredth of it at ``progress`` 1."""
    if schedule == "constant":
        return initial
    return initial * max(1 - progress, 0.01)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
