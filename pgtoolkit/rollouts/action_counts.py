"""How often each part of a ``Box`` of actions is used."""

from collections.abc import Iterator
from typing import Any, NamedTuple, final

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.rollouts.window import Window

NUM_BINS = 40
"""Bins between the two bounds of a dimension."""

AT_BOUND = 0.99
"""An action is at a bound from here on, where the bounds are -1 and 1."""


@final
class ActionCounts(NamedTuple):
    """Counts of actions in those dimensions of their space that have two bounds."""

    dimensions: tuple[int, ...]
    """These dimensions."""
    counts: tuple[tuple[int, ...], ...]
    """``[D][NUM_BINS]``: a row for each, in bins of equal width from the lower to the upper bound.
    Actions beyond a bound are in the bin beside it."""
    at_bound: int
    """How many of the entries that were counted are closer to a bound than 0.5 % of the bounds'
    distance."""

    @property
    def at_bound_share(self) -> float:
        """The share of the entries that are at a bound."""
        return self.at_bound / max(1, sum(map(sum, self.counts)))


@final
class ActionCounter:
    """Counts the actions of windows that pass by.

    Args:
        space: the action space of one environment; actions are counted if it is a ``Box`` with
            bounds.
    """

    def __init__(self, space: Space[Any]) -> None:
        low, high = (space.low, space.high) if isinstance(space, Box) else (np.inf, np.inf)
        self._low, self._high = (np.ravel(x).astype(np.float64) for x in (low, high))
        bounded = np.isfinite(self._low) & np.isfinite(self._high) & (self._low < self._high)
        self._dimensions = np.flatnonzero(bounded)
        self._counts = np.zeros((len(self._dimensions), NUM_BINS), np.int64)
        self._at_bound = 0

    @property
    def found(self) -> ActionCounts | None:
        """The counts so far; None if no dimension has two bounds."""
        if not len(self._dimensions):
            return None
        dimensions = tuple(self._dimensions.tolist())
        counts = tuple(map(tuple, self._counts.tolist()))
        return ActionCounts(dimensions, counts, self._at_bound)

    def passing(self, windows: Iterator[Window]) -> Iterator[Window]:
        """The windows, each after its valid actions were counted."""
        for window in windows:
            if len(self._dimensions):
                self._add(window.action[window.valid].cpu().numpy())
            yield window

    def _add(self, actions: NDArray[Any]) -> None:
        """Counts actions ``[M, A]``."""
        low, high = self._low[self._dimensions], self._high[self._dimensions]
        share = (actions[:, self._dimensions] - low) / (high - low)
        bins = np.clip(share * NUM_BINS, 0, NUM_BINS - 1).astype(np.int64)
        for row, column in zip(self._counts, bins.T, strict=True):
            row += np.bincount(column, minlength=NUM_BINS)
        self._at_bound += int((abs(2 * share - 1) > AT_BOUND).sum())
