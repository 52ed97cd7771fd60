"""Tests of numbers formatted as text for people."""

import math

import pytest

from pgtoolkit.formatting import format_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345, "12,300"),
        (0.00213, "0.00213"),
        (-0.000741, "-7.41e-4"),
        (1.518e9, "1.52e9"),
        (99999.0, "1.00e5"),
        (47.31, "47.3"),
        (0, "0"),
        (math.nan, "-"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert format_number(value) == text
