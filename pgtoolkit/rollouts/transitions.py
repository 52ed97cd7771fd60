"""Transitions: single steps of environments, without their order in time."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Self, final

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError

TRANSITION_FIELDS = ("obs", "action", "reward", "next_obs", "terminated")
"""Names of the tensors that all transitions have."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Transitions:
    """Steps that were taken: the data of replay buffers, minibatches and learned models.

    All tensors have the same leading axes ``[...]``, usually one axis ``[M]`` of transitions.
    ``O`` stands for any observation shape, also that of an image. The axis ``A`` is absent where
    actions are discrete.

    Raises:
        RequestError: the leading axes differ, or an extra has the name of a field.
    """

    obs: Tensor
    """``[..., O]``: the observation on which the action was chosen."""
    action: Tensor
    """``[..., A]``: the action that the environment received."""
    reward: Tensor
    """``[...]``."""
    next_obs: Tensor
    """``[..., O]``: the observation after the step and before any reset."""
    terminated: Tensor
    """``[...]`` bool: the step reached a terminal state, whose value is 0. False where the episode
    was only truncated, because the value of ``next_obs`` still counts there."""
    extras: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """Further tensors by name, for example ``log_prob`` ``[...]`` or ``noise`` ``[..., A]``."""

    def __post_init__(self) -> None:
        clash = [name for name in self.extras if name in TRANSITION_FIELDS]
        if clash:
            raise RequestError(f"the extras of transitions repeat fields: rename {clash}")
        leading, axes = self.reward.shape, self.reward.dim()
        for name, tensor in self.tensors().items():
            if tensor.shape[:axes] != leading:
                raise RequestError(
                    f"{name} of transitions has shape {list(tensor.shape)}, but the reward has "
                    f"{list(leading)}: give every tensor the leading axes of the reward"
                )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of :meth:`tensors`: names that are not fields become extras."""
        extras = {name: tensor for name, tensor in tensors.items() if name not in TRANSITION_FIELDS}
        return cls(**{name: tensors[name] for name in TRANSITION_FIELDS}, extras=extras)

    def tensors(self) -> dict[str, Tensor]:
        """The five fields and the extras in one dictionary, by name."""
        return {name: getattr(self, name) for name in TRANSITION_FIELDS} | dict(self.extras)

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Applies a function to every tensor, extras included."""
        return self.from_tensors({name: function(x) for name, x in self.tensors().items()})

    def rows(self, index: Tensor | slice) -> Self:
        """Indexes the first leading axis of every tensor: by numbers, a bool mask or a slice."""
        return self.map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> Self:
        """Copies the transitions to ``device``; tensors that are there already are not copied."""
        return self.map(lambda tensor: tensor.to(device))
