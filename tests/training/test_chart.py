"""The chart of variance by step, pixel by pixel where it matters."""

import numpy as np
import pytest

from pgtoolkit.training.chart import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, step_chart

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
