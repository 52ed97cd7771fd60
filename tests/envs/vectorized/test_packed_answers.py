"""Answers to steps, packed and unpacked."""

import pickle
from typing import Any

import numpy as np
import pytest

from pgtoolkit.envs.vectorized.causes import Failure
from pgtoolkit.envs.vectorized.packed_answers import PackedAnswers
from pgtoolkit.envs.vectorized.play import NewEpisode

START = {"seed": 1, "generator": None}
END = (np.ones(2), 2.0, True, False, NewEpisode(np.zeros(2), START), None)


def step(obs: Any, reward: float, success: bool | None = None) -> Any:
    return obs, reward, False, False, None, success


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [(0, END)],
        [(4, step(np.array([0.1, np.nan]), 1e300)), (5, END), (6, step(np.ones(2), -0.0, True))],
        [(0, step(np.zeros((2, 2, 3), np.uint8), 0.5)), (1, Failure("broken"))],
        [(0, step(np.zeros(2, np.float32), 0.5)), (1, step(np.zeros(2), 0.5))],  # of two kinds
        [(0, step((1, 2), 0.5)), (1, step((1, 2), 0.5))],
    ],
)
def test_answers_come_back_as_they_were(answers: Any) -> None:
    found = pickle.loads(pickle.dumps(PackedAnswers.of(answers))).unpacked()
    assert [i for i, _ in found] == [i for i, _ in answers]
    for (_, one), (_, two) in zip(found, answers, strict=True):
        if isinstance(two, Failure):
            assert one == two
            continue
        assert type(one[0]) is type(two[0]) and np.array_equal(one[0], two[0], equal_nan=True)
        assert getattr(one[0], "dtype", None) == getattr(two[0], "dtype", None)
        assert repr(one[1]) == repr(two[1]) and one[2:4] == two[2:4] and one[5] == two[5]
        assert (one[4] is None) == (two[4] is None)


def test_steps_inside_of_episodes_are_one_array() -> None:
    answers = [(k, step(np.full(3, float(k)), float(k))) for k in range(4)]
    packed = PackedAnswers.of(answers)
    assert packed.observations.shape == (4, 3) and packed.others == []
