"""Counts of actions between their bounds."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete

from pgtoolkit.rollouts.action_counts import NUM_BINS, ActionCounter, ActionCounts
from pgtoolkit.rollouts.window import Window


def counted(space: Space[Any], actions: Any, valid: Any = None) -> ActionCounts | None:
    """The counts after a window with actions ``[T, N, A]`` has passed twice."""
    action = torch.tensor(actions, dtype=torch.float32)
    flat = torch.zeros(action.shape[:2])
    false = flat.bool()
    names = ("obs", "next_obs", "noise", "pre_action", "log_prob", "reward")
    window = Window(
        action=action,
        terminated=false,
        truncated=false,
        valid=~false if valid is None else torch.tensor(valid).bool(),
        **dict.fromkeys(names, flat),
    )
    counter = ActionCounter(space)
    assert len(list(counter.passing(iter([window, dataclasses.replace(window)])))) == 2
    return counter.found


def test_bins_go_from_bound_to_bound() -> None:
    """Bounds -2 and 6: the middle is 2, and a bin has the width 0.2."""
    actions = [[[-2.0], [-1.81]], [[-1.79], [6.0]], [[2.01], [5.9]]]
    found = counted(Box(-2, 6, (1,)), actions)
    assert found is not None and found.dimensions == (0,)
    expected = np.zeros(NUM_BINS, int)
    np.add.at(expected, [0, 0, 1, NUM_BINS - 1, NUM_BINS // 2, NUM_BINS - 1], 2)
    np.testing.assert_array_equal(found.counts, [expected])
    # 0.5 % of 8 is 0.04: only -2 and 6 are that close.
    assert found.at_bound == 4
    assert found.at_bound_share == pytest.approx(1 / 3)


def test_actions_beyond_a_bound_are_at_it_and_steps_that_do_not_count_are_left_out() -> None:
    found = counted(Box(-1, 1, (1,)), [[[9.0], [-9.0]], [[0.1], [0.5]]], [[1, 1], [1, 0]])
    assert found is not None and sum(found.counts[0]) == 6
    assert (found.counts[0][0], found.counts[0][-1]) == (2, 2)
    assert found.at_bound == 4


def test_a_dimension_without_two_bounds_has_no_counts() -> None:
    space = Box(np.array([-1, -np.inf, 0, 3]), np.array([1, 1, np.inf, 5]), dtype=np.float64)
    found = counted(space, [[[0.0, 0.0, 0.0, 3.0]]])
    assert found is not None and found.dimensions == (0, 3)
    assert [sum(row) for row in found.counts] == [2, 2]
    assert found.at_bound_share == 0.5


@pytest.mark.parametrize("space", [Box(-np.inf, np.inf, (1,)), Discrete(3)])
def test_a_space_without_bounds_has_none(space: Space[Any]) -> None:
    assert counted(space, [[[0.0], [1.0]]]) is None


def test_a_box_of_two_axes_is_counted_row_after_row() -> None:
    found = counted(Box(0, 1, (2, 2)), [[[0.0, 1.0, 0.5, 0.0]]])
    assert found is not None and found.dimensions == (0, 1, 2, 3)
    assert [row[0] for row in found.counts] == [2, 0, 0, 2]
