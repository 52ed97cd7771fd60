"""Tests of numbers formatted as text for people."""

import math

import pytest

from pgtoolkit.formatting import FLAG, format_number, nice_step


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


@pytest.mark.parametrize(("width", "step"), [(4.0, 1), (5.0, 2), (59_000.0, 20_000), (0.03, 0.01)])
def test_ticks_are_one_two_or_five_times_a_power_of_ten_apart(width: float, step: float) -> None:
    assert nice_step(width, 4) == pytest.approx(step)


def test_flags_are_found_in_a_sentence() -> None:
    text = "use a larger --num-envs, or --n-steps 8; a dash -- or -x is none, --no-x2."
    assert FLAG.findall(text) == ["--num-envs", "--n-steps", "--no-x2"]
