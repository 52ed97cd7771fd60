"""Observations of any space as rows, one alone or many."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from pgtoolkit.errors import RequestError
from pgtoolkit.networks.flat_rows import Section, flat_rows, sections

INNER = spaces.Dict({"lin": spaces.Box(-1, 1, (2, 2)), "word": spaces.Text(4)})
SPACE = spaces.Dict(
    {"cell": spaces.Discrete(3, start=2), "pair": spaces.MultiDiscrete([2, 3]), "velocity": INNER}
)
NUMBERS = spaces.Dict(
    {
        "cell": spaces.Discrete(3, start=2),
        "pair": spaces.MultiDiscrete([2, 3]),
        "velocity": spaces.Dict({"lin": spaces.Box(-1, 1, (2, 2))}),
    }
)
TUPLE = spaces.Tuple((spaces.MultiBinary(3), spaces.Box(-1, 1, ()), NUMBERS))


@pytest.mark.parametrize(
    "space",
    [NUMBERS, TUPLE, spaces.Box(-1, 1, (2, 3)), spaces.Discrete(4), spaces.MultiDiscrete([2, 5])],
)
def test_one_and_many_are_those_of_gymnasium(space: spaces.Space[Any]) -> None:
    space.seed(0)
    one = space.sample()
    rows, is_single = flat_rows(space, one)
    assert is_single
    np.testing.assert_array_equal(rows, np.asarray(spaces.flatten(space, one))[None])
    many = batch_space(space, 4)
    many.seed(1)
    batch = many.sample()
    rows, is_single = flat_rows(space, batch)
    assert not is_single and rows.shape == (4, spaces.flatdim(space))
    third = spaces.flatten(space, _entry(space, batch, 2))
    np.testing.assert_array_equal(rows[2], np.asarray(third))


def _entry(space: spaces.Space[Any], value: Any, index: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _entry(part, value[key], index) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_entry(part, v, index) for part, v in zip(space, value, strict=True))
    return value[index]


def test_text_is_left_out() -> None:
    velocity = {"lin": np.ones((2, 2), np.float32), "word": "go"}
    rows, _ = flat_rows(SPACE, {"cell": 4, "pair": [1, 0], "velocity": velocity})
    assert rows.tolist() == [[0, 0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1]]


def test_the_places_of_the_parts() -> None:
    assert sections(SPACE) == [
        Section("cell", 0, 3, True),
        Section("pair", 3, 8, True),
        Section("velocity.lin", 8, 12, False),
    ]
    assert sections(spaces.Discrete(4)) == [Section("", 0, 4, True)]


LIN = np.zeros((2, 2))


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"cell": 3}, r"the observation has the parts \['cell', 'pair', 'velocity'\], not"),
        ([1, 2], "not <class 'list'>"),
        ({"cell": 9, "pair": [0, 0], "velocity": {"lin": LIN}}, r"'cell' .* is 9, not in Discrete"),
        ({"cell": 3, "pair": [0], "velocity": {"lin": LIN}}, r"'pair' .* has the shape \[1\]"),
        ({"cell": [3, 4], "pair": [0, 0], "velocity": {"lin": LIN}}, r"cell \[2\], pair 1"),
        ({"cell": 3, "pair": [0, 0], "velocity": {"in": LIN}}, "the part 'velocity' of"),
    ],
)
def test_what_is_not_of_the_space_is_refused(observation: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        flat_rows(NUMBERS, observation)
