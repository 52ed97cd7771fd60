"""The floating-point numbers of a flattened tree are told from its codes."""

import numpy as np

from pgtoolkit.envs.adapters.gymnasium.pytree_floats import are_floats, first_are_floats
from pgtoolkit.envs.adapters.gymnasium.pytree_writer import flatten


def test_the_numbers_that_are_floats_are_told() -> None:
    numbers = flatten((2, np.array([1, 2]), 0.5, [True, {"a": np.float32(1.0)}, 1j], 2**70))
    assert numbers is not None
    expected = [False, False, False, True, False, True, True, True]
    assert are_floats(numbers.codes) == [*expected, *[False] * 4]


def test_padding_and_further_trees_are_not_read() -> None:
    numbers, padding = flatten([0.5, 1, 2.5, None]), (0.0, 0.0)
    assert numbers is not None
    codes = (*map(float, numbers.codes), *padding)
    assert first_are_floats(codes) == are_floats(numbers.codes) == [True, False, True]
