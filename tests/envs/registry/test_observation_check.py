"""What is said of observations that do not fit their space."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from pgtoolkit.envs.registry.observation_check import mismatch

PAIR = spaces.Box(-1, 1, (2,), np.float32)
NESTED = spaces.Dict(
    {
        "body": spaces.Dict({"place": PAIR, "mode": spaces.Discrete(3, start=-1)}),
        "both": spaces.Tuple((spaces.MultiBinary(2), spaces.MultiDiscrete([3, 2], start=[1, 0]))),
        "said": spaces.Text(5),
    }
)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_space_samples_fits_it(seed: int) -> None:
    NESTED.seed(seed)
    assert mismatch(NESTED, NESTED.sample()) == ""


@pytest.mark.parametrize("value", [np.zeros(2), [9, 9], np.array([np.nan, 1e9]), np.zeros(2, bool)])
def test_numbers_of_another_kind_or_outside_of_the_bounds_fit(value: Any) -> None:
    assert mismatch(PAIR, value) == ""


def test_text_may_be_missing() -> None:
    value = {"body": {"place": [0, 0], "mode": 1}, "both": ([0, 1], [3, 1])}
    assert mismatch(NESTED, value) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"body": None}, "the part 'body' of the observation is None where the space has a dict"),
        ({"body": {"mode": 1}}, "the part 'body' of the observation has no 'place'"),
        ({"body": {"place": [0.0], "mode": 1}}, "the part 'body.place' of the observation has the"),
        ({"body": {"place": [0, 0], "mode": 2}}, "'body.mode' of the observation is 2, outside"),
        ({"body": {"place": [0, 0], "mode": 0.5}}, "is 0.5 where the space has one integer"),
        ({"both": ([0, 1],)}, "where the space has a tuple of 2"),
        ({"both": ([0, 1], [0, 1])}, "the part 'both.1' of the observation is [0, 1], outside"),
        ({"both": ([0, 1], [1.0, 1.0])}, "where the space has integers, MultiDiscrete"),
        ({"both": (["a", "b"], [1, 1])}, "where the space has numbers [2]"),
    ],
)
def test_the_part_that_is_wrong_is_named(change: dict[str, Any], words: str) -> None:
    value = {"body": {"place": [0, 0], "mode": 1}, "both": ([0, 1], [3, 1]), "said": "hello"}
    assert words in mismatch(NESTED, value | change)


def test_a_tuple_may_be_an_array() -> None:
    assert mismatch(spaces.Tuple((spaces.Discrete(3), spaces.Discrete(3))), np.array([1, 2])) == ""


def test_a_tensor_with_a_graph_is_no_observation() -> None:
    assert "where the space has an array" in mismatch(PAIR, torch.zeros(2, requires_grad=True))


def test_long_observations_are_shortened() -> None:
    assert len(mismatch(PAIR, ["x" * 500, "y"])) < 200
