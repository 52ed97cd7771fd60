"""The transitions that a model learns from: the newest of them, and no more than fit."""

from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.envs.adapters.learned.model import Transitions


@final
class TransitionBuffer:
    """A ring of float32 rows: when it is full, the oldest transition is overwritten.

    Args:
        obs_size: ``O``.
        action_size: ``A``.
        capacity: transitions that it can hold.
    """

    def __init__(self, obs_size: int, action_size: int, capacity: int) -> None:
        self.capacity, self.added = capacity, 0
        self._sizes = [obs_size, action_size, obs_size, 1]
        self._rows = torch.zeros(capacity, sum(self._sizes))

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, batch: Transitions) -> None:
        """Appends transitions ``[N]``; of more than fit, the last."""
        rows = torch.cat([*batch[:3], batch.reward.unsqueeze(-1)], -1)
        self.added += len(rows)
        rows = rows[-self.capacity :]
        places = (torch.arange(self.added - len(rows), self.added)) % self.capacity
        self._rows[places] = rows.to(self._rows)

    def take(self, index: Tensor) -> Transitions:
        """The transitions at these places, each from 0 to ``len - 1``, in any shape ``[...]``."""
        observation, action, next_observation, reward = torch.split(
            self._rows[index], self._sizes, -1
        )
        return Transitions(observation, action, next_observation, reward.squeeze(-1))

    def newest(self, count: int) -> Transitions:
        """The last ``count`` transitions, or as many as there are, oldest first."""
        count = min(count, len(self))
        return self.take(torch.arange(self.added - count, self.added) % self.capacity)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Transitions:
        """Transitions drawn uniformly, with replacement."""
        return self.take(torch.randint(len(self), shape, generator=generator))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows[: len(self)], "added": self.added}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.added = state["added"]
        self._rows[: len(self)] = state["rows"].to(self._rows)
