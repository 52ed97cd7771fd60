"""Types of settings."""

from typing import Any, Literal

import numpy as np
import pytest

from pgtoolkit.setting_types import fits, plain_value, words_of


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [3, -1], [3.0, "3", True, None]),
        (float, [3, 0.5], ["0.5", False]),
        (bool, [True], [1, 0.0, "yes"]),
        (int | None, [None, 3], [0.5]),
        (Literal["one", "other"], ["one"], ["two", 1, None]),
        (Literal[1, 2], [1], [True, 1.0]),
        (tuple[int, ...], [(), (1, 2)], [3, [1], (1, "2")]),
        (tuple[float, float], [(0.5, 1)], [(0.5,), (0.5, 1.0, 2.0)]),
    ],
)
def test_a_value_fits_its_annotation_or_not(annotation: Any, good: Any, bad: Any) -> None:
    """True is no number, and a list no tuple."""
    assert [fits(value, annotation) for value in good] == [True] * len(good)
    assert [fits(value, annotation) for value in bad] == [False] * len(bad)


def test_numbers_of_numpy_and_lists_become_plain() -> None:
    """Others, such as text and lists where a list belongs, stay."""
    number = plain_value(np.int64(8), int)
    assert type(number) is int and number == 8
    assert plain_value([np.float64(0.5), 1], tuple[float, float]) == (0.5, 1)
    assert plain_value([1], tuple[int, ...] | None) == (1,)
    assert plain_value([1], list[int]) == [1]


def test_a_whole_number_with_an_exponent_is_an_integer_where_one_belongs() -> None:
    steps = plain_value(1e6, int | None)
    assert type(steps) is int and steps == 1_000_000
    assert type(plain_value(np.float64(3), int)) is int
    assert type(plain_value(3.0, float)) is float and plain_value(0.5, int) == 0.5
    assert type(plain_value(3.0, int | float)) is float and plain_value("3.0", int) == "3.0"


def test_words_complete_a_sentence() -> None:
    """They stand after "must be"."""
    assert words_of(int | None) == "an integer or None"
    assert words_of(Literal["a", "b"]) == "a or b"
    assert words_of(tuple[float, float]) == "a tuple of 2, each a number"
