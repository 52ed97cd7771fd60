"""The chart of variance by step, pixel by pixel where it matters."""

import math

import numpy as np
import pytest

from pgtoolkit.training.chart import (
    BOTTOM,
    COLOURS,
    GRID,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    linear_step_chart,
    step_chart,
)

PATHWISE = np.array(COLOURS["pathwise"])


def pixels(image: np.ndarray) -> np.ndarray:
    """Rows and columns inside the axes that have the pathwise colour ``[M, 2]``."""
    inside = (image == PATHWISE).all(-1)
    inside[: TOP - 2] = False  # the legend
    return np.argwhere(inside)


def test_it_is_an_rgb_array() -> None:
    """The chart has the writer's height and width, in three 8-bit channels."""
    image = step_chart({"pathwise": [1.0, 2.0]}, title="t")
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8


def test_a_curve_spans_the_axes_and_rises_with_its_values() -> None:
    """1 to 1000 over four steps on a log axis: a straight line from corner to corner."""
    found = pixels(step_chart({"pathwise": [1.0, 10.0, 100.0, 1000.0]}, title="t"))
    left, right = found[found[:, 1].argmin()], found[found[:, 1].argmax()]
    assert left.tolist() == pytest.approx([HEIGHT - BOTTOM, LEFT], abs=2)
    assert right.tolist() == pytest.approx([TOP, WIDTH - RIGHT], abs=2)
    slope = np.polyfit(found[:, 1], found[:, 0], 1)
    assert float(np.abs(np.polyval(slope, found[:, 1]) - found[:, 0]).max()) < 3


@pytest.mark.parametrize("values", [[0.0, 5.0, 7.0], [float("nan"), 5.0, 7.0], [5.0], [1.0, 1.0]])
def test_what_has_no_logarithm_is_left_out_and_little_data_is_drawn(values: list[float]) -> None:
    """A zero, a NaN, a single step, or a constant curve."""
    image = step_chart({"pathwise": values}, title="t")
    assert image.shape == (HEIGHT, WIDTH, 3)


def test_each_estimator_has_its_colour() -> None:
    """Only the estimators that are given are drawn; an unknown name is no error."""
    image = step_chart({"score_function": [1.0, 2.0], "other": [2.0, 1.0]}, title="t")
    assert bool((image == np.array(COLOURS["score_function"])).all(-1).any())
    assert not bool((image == PATHWISE).all(-1).any())


def ticks(image: np.ndarray) -> list[int]:
    """Rows of the grid's lines, from the top."""
    grid = (image[:, WIDTH // 2] == np.array(GRID)).all(-1)
    rows = np.flatnonzero(grid)
    return [int(row) for row in rows if row - 1 not in rows]


def test_a_linear_axis_ends_at_round_numbers_around_the_curve() -> None:
    """-28 to 31: ticks at -40, -20, 0, 20 and 40, so the curve ends below the upper one."""
    image = linear_step_chart({"pathwise": [0.0, 31.0, -28.0]}, title="t")
    assert len(ticks(image)) == 5
    rows = pixels(image)[:, 0]
    height = HEIGHT - BOTTOM - TOP
    assert rows.min() == pytest.approx(TOP + height * 9 / 80, abs=3)
    assert rows.max() == pytest.approx(TOP + height * 68 / 80, abs=3)


def test_a_small_curve_fills_its_axis_unless_the_ends_are_given() -> None:
    """A squared bias of 1e-5 is seen; a cosine of 1e-5 is seen to be 0."""
    curve = {"pathwise": [0.0, 1e-5]}
    free, fixed = (
        linear_step_chart(curve, title="t"),
        linear_step_chart(curve, title="t", ends=(-1.0, 1.0)),
    )
    assert pixels(free)[:, 0].min() == pytest.approx(TOP, abs=3)
    assert pixels(fixed)[:, 0].min() == pytest.approx((TOP + HEIGHT - BOTTOM) / 2, abs=3)


@pytest.mark.parametrize("values", [[0.0, 0.0], [math.nan, -3.0], [1e38, -1e38], [1e-44]])
def test_a_linear_chart_is_drawn_whatever_the_numbers(values: list[float]) -> None:
    assert linear_step_chart({"a": values}, title="t").shape == (HEIGHT, WIDTH, 3)
