"""Trees of numbers are flattened and rebuilt exactly, with their types."""

from typing import Any

import numpy as np
import pytest

from pgtoolkit.envs.adapters.gymnasium.pytree_numbers import ABSENT, are_floats, flatten, unflatten


@pytest.mark.parametrize(
    "tree",
    [
        None,
        True,
        -3,
        0.1,
        ABSENT,
        np.float32(0.1),
        np.int64(-(2**53)),
        np.bool_(True),
        np.array(0.5),
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.array([[0.1, np.nan], [np.inf, -0.0]]),
        np.zeros((0, 2), dtype=np.float32),
        (1, [None, (0.5, np.array([1, 2]))], (), np.float64(2.0)),
    ],
)
def test_trees_of_numbers_come_back_with_their_types(tree: Any) -> None:
    def describe(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value), [describe(branch) for branch in value]
        if isinstance(value, (np.ndarray, np.generic)):
            return type(value), value.dtype, value.shape, value.tobytes()
        return type(value), value

    numbers = flatten(tree)
    assert numbers is not None
    assert len(are_floats(numbers.codes)) == len(numbers.values)
    padded = (*map(float, numbers.codes), 0.0), [*map(float, numbers.values), 0.0]
    assert describe(unflatten(*padded)) == describe(tree)


@pytest.mark.parametrize(
    "tree",
    ["a", {1: 2}, (1, {2}), np.array(["a"]), 2**60, np.array([2**60]), np.complex128(1), object()],
)
def test_what_is_not_made_of_numbers_is_said_to_be_so(tree: Any) -> None:
    assert flatten(tree) is None


def test_an_integer_that_is_moved_becomes_a_float() -> None:
    numbers = flatten((2, np.array([1, 2]), 0.5))
    assert numbers is not None and are_floats(numbers.codes) == [False, False, False, True]
    moved = unflatten(numbers.codes, [2.5, 1.0, 2.5, 0.5])
    assert moved[0] == 2.5 and moved[1].tolist() == [1.0, 2.5]
