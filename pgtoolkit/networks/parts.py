"""Parts of an observation that not every network reads: privileged numbers, and action masks."""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.errors import RequestError

PRIVILEGED, ACTION_MASK = "privileged", "action_mask"
"""Names of these parts in a ``Dict`` observation."""

ALLOWED = 0.5
"""An action is allowed where its entry of the mask is greater."""


@final
class Part(NamedTuple):
    """Consecutive entries ``start:stop`` of a row."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@final
class RowWithParts(spaces.Box):
    """A row of numbers, some of which are not for every network.

    Args:
        low: ``[O]`` lower bounds.
        high: ``[O]`` upper bounds.
        dtype: of the row.
        privileged: entries that value and Q functions read, and the policy does not, such as what a
            simulator knows and a robot cannot measure (asymmetric actor-critic, Pinto et al. 2018).
        action_mask: entries that say which discrete actions are allowed, 1 or 0, one an action; a
            ``MultiDiscrete`` space has those of its first variable first, and a ``MultiBinary`` one
            an entry a variable, 1 where it may be 1. The policy's hidden
            layers do not read them; actions that are not allowed have probability 0.

    Raises:
        RequestError: no entry is left for the policy.
    """

    def __init__(
        self,
        low: np.ndarray,
        high: np.ndarray,
        dtype: Any = np.float32,
        *,
        privileged: tuple[int, int] | None = None,
        action_mask: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(low, high, dtype=dtype)
        self.privileged = None if privileged is None else Part(*privileged)
        self.action_mask = None if action_mask is None else Part(*action_mask)
        if not self.policy_entries:
            raise RequestError(
                f"no entry of the observation is left for the policy beside {PRIVILEGED!r} and "
                f"{ACTION_MASK!r}: give the observation another part"
            )

    def __eq__(self, other: object) -> bool:
        """Whether the other space has the same numbers, with the same parts among them."""
        return (
            isinstance(other, RowWithParts)
            and (self.privileged, self.action_mask) == (other.privileged, other.action_mask)
            and super().__eq__(other)
        )

    @property
    def policy_entries(self) -> list[int]:
        """The indices of the entries that the policy's hidden layers read."""
        parts = [part for part in (self.privileged, self.action_mask) if part is not None]
        taken = {i for part in parts for i in range(*part)}
        return [i for i in range(self.shape[0]) if i not in taken]


def row_with_parts(space: spaces.Box, order: Sequence[tuple[str, int]]) -> spaces.Box:
    """The space of a flattened ``Dict``, with the parts that have the names of special ones.

    Args:
        space: of the flat row.
        order: name and size of its parts, in their order.
    """
    ends = np.cumsum([size for _, size in order]).tolist()
    found = {
        name: (end - size, end)
        for (name, size), end in zip(order, ends, strict=True)
        if name in (PRIVILEGED, ACTION_MASK)
    }
    return RowWithParts(space.low, space.high, space.dtype, **found) if found else space


def policy_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The observations as the policy's hidden layers read them."""
    if not isinstance(space, RowWithParts):
        return space
    kept = space.policy_entries
    return spaces.Box(space.low[kept], space.high[kept], dtype=space.dtype.type)


def mask_part(space: spaces.Space[Any]) -> Part | None:
    """The part of an observation that is an action mask, if there is one."""
    return space.action_mask if isinstance(space, RowWithParts) else None


@final
class Entries(nn.Module):
    """Some entries of a row: ``[..., O]`` to ``[..., len(indices)]``."""

    indices: Tensor

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("indices", torch.tensor(indices), persistent=False)

    def forward(self, row: Tensor) -> Tensor:
        return row.index_select(-1, self.indices)


@final
class WithMask(nn.Module):
    """Hidden layers that pass the action mask on: ``[..., O]`` to ``[..., F + K]``, the mask last.

    Args:
        layers: from the row to features ``[..., F]``.
        mask: the mask's place in the row.
    """

    def __init__(self, layers: nn.Module, mask: Part) -> None:
        super().__init__()
        self.layers, self.mask = layers, mask

    def forward(self, row: Tensor) -> Tensor:
        return torch.cat([self.layers(row), row[..., self.mask.start : self.mask.stop]], -1)


def select_parts(layers: nn.Module, space: spaces.Space[Any]) -> nn.Module:
    """Hidden layers of a policy, on whole observations.

    Args:
        layers: hidden layers on observations of :func:`policy_space`.
        space: the observation space.
    """
    if not isinstance(space, RowWithParts):
        return layers
    own = [*layers] if type(layers) is nn.Sequential else [layers]
    selected = nn.Sequential(Entries(space.policy_entries), *own)
    return selected if space.action_mask is None else WithMask(selected, space.action_mask)
