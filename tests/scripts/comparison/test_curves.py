"""Curves of several seeds on one grid."""

import numpy as np
import pytest

from pgtoolkit.scripts.comparison.curves import Curve, band, common_grid


def curve(x: list[float], y: list[float]) -> Curve:
    return Curve(np.array(x), np.array(y))


def test_curves_at_the_same_points_keep_them() -> None:
    found = band([curve([1, 5, 7], [0, 1, 2]), curve([1, 5, 7], [2, 3, 8])])
    assert found.x.tolist() == [1, 5, 7] and found.iqm.tolist() == [1, 2, 5]
    assert found.least.tolist() == [0, 1, 2] and found.greatest.tolist() == [2, 3, 8]
    assert found.low.tolist() == [0, 1, 2] and found.high.tolist() == [2, 3, 8]


def test_other_curves_are_compared_where_all_of_them_are() -> None:
    """Straight lines y = x and y = 2 x stay what they are between their points."""
    found = band([curve([0, 1, 4], [0, 1, 4]), curve([1, 3, 4, 6], [2, 6, 8, 12])])
    assert found.x.tolist() == [1, 2.5, 4]
    np.testing.assert_allclose(found.iqm, 1.5 * found.x)


def test_one_seed_has_no_interval() -> None:
    found = band([curve([1, 2], [3, 4])])
    assert np.isnan(found.low).all() and found.as_dict()["low"] == [None, None]
    assert found.iqm.tolist() == found.least.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("xs", "grid"),
    [
        ([[0, 1], [3, 4]], [2]),  # no common range: the middle of the gap
        ([[2], [2]], [2]),
        ([[0, 4], [1, 2, 3]], [1, 3]),
    ],
)
def test_the_common_grid(xs: list[list[float]], grid: list[float]) -> None:
    assert common_grid([np.array(x, np.float64) for x in xs]).tolist() == grid
