"""Adam with a clip of the gradient's norm and a learning-rate schedule."""

import copy
from collections.abc import Callable
from typing import Any, Protocol, Self, final

import torch
from torch import nn

from pgtoolkit.agent import Metrics
from pgtoolkit.config import Schedule
from pgtoolkit.learners.gradient_clip import clip_gradient
from pgtoolkit.learners.step_rules.base import Problem
from pgtoolkit.state import require, schema_of

Progress = Callable[[], float]
"""The share of the planned environment steps that is done, from 0 to 1."""


class AdamConfig(Protocol):
    """The settings that :meth:`Adam.of` reads."""

    @property
    def learning_rate_schedule(self) -> Schedule: ...
    @property
    def adam_betas(self) -> tuple[float, float]: ...
    @property
    def max_grad_norm(self) -> float: ...


@final
class Adam:
    """``torch.optim.Adam`` after a global-norm clip, with a scheduled learning rate.

    Args:
        module: its parameters are optimised.
        learning_rate: initial learning rate.
        betas: decay rates of the two moments.
        max_grad_norm: global norm to which the gradient is clipped.
        schedule: ``linear`` falls to a hundredth at the end of the run; ``constant`` stays.
        progress: gives the share of the run that is done, for the schedule.
    """

    def __init__(
        self,
        module: nn.Module,
        learning_rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        max_grad_norm: float = float("inf"),
        schedule: Schedule = "constant",
        progress: Progress = lambda: 0.0,
    ) -> None:
        self.initial, self.max_grad_norm = learning_rate, max_grad_norm
        self.schedule, self.progress = schedule, progress
        self.optimizer = torch.optim.Adam(
            module.parameters(), learning_rate, betas=betas, fused=True
        )

    @classmethod
    def of(
        cls,
        config: AdamConfig,
        module: nn.Module,
        progress: Progress,
        *,
        learning_rate: float,
    ) -> Self:
        """Makes the rule of an agent's settings, with one of its learning rates."""
        return cls(
            module,
            learning_rate,
            betas=config.adam_betas,
            max_grad_norm=config.max_grad_norm,
            schedule=config.learning_rate_schedule,
            progress=progress,
        )

    @property
    def learning_rate(self) -> float:
        """The learning rate at this point of the run."""
        return scheduled(self.initial, self.schedule, self.progress())

    def step(self, module: nn.Module, problem: Problem | None = None) -> Metrics:
        norm = clip_gradient(module.named_parameters(), self.max_grad_norm)
        set_learning_rate(self.optimizer, self.learning_rate)
        self.optimizer.step()
        return {
            "train/learning_rate": torch.tensor(self.learning_rate),
            "train/gradient_norm": norm.detach(),
            "train/gradient_clipped": (norm > self.max_grad_norm).double(),
        }

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require(state, schema_of(self.optimizer))
        # torch keeps the tensors that it is given, and steps write into them.
        self.optimizer.load_state_dict(copy.deepcopy(state))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def scheduled(initial: float, schedule: Schedule, progress: float) -> float:
    """``initial`` throughout, or falling linearly to a hundredth of it at ``progress`` 1."""
    if schedule == "constant":
        return initial
    return initial * max(1 - progress, 0.01)
