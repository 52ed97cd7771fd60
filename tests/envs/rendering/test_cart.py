import math

import numpy as np
import pytest

from pgtoolkit.envs.rendering import canvas
from pgtoolkit.envs.rendering.cart import cart_on_track, rod


def test_the_cart_is_where_it_is_and_the_hinge_above_the_track() -> None:
    picture, hinge = cart_on_track(0.5, extent=2.0, base=-0.5)
    assert hinge[0] == 0.5 and hinge[1] > -0.5
    column, row = round((0.5 / 2 + 1) * 128), round((1 - hinge[1] / 2) * 128)
    assert tuple(picture.rgb()[row, column]) == canvas.DARK


@pytest.mark.parametrize("side", [-1, 1])
def test_the_view_follows_a_cart_that_goes_far(side: int) -> None:
    picture, hinge = cart_on_track(side * 30.0, extent=2.0, base=0.0)
    assert hinge[0] == pytest.approx(side * 1.4)
    moved, _ = cart_on_track(side * 30.2, extent=2.0, base=0.0)
    # The cart stays where it is in the picture; the marks on the track show that it moved.
    assert not np.array_equal(picture.rgb(), moved.rgb())


def test_only_the_middle_of_the_track_has_a_green_mark() -> None:
    def green(x: float) -> bool:
        picture, _ = cart_on_track(x, extent=2.0, base=0.0)
        red, green, _ = np.moveaxis(picture.rgb().astype(int), -1, 0)
        return bool((green > red + 40).any())

    assert green(0.0) and green(-3.0) and not green(5.0)


def test_a_rod_at_a_positive_angle_leans_to_the_right() -> None:
    blank = canvas.blank()
    picture, end = rod(blank, (0.0, 0.0), math.pi / 2, 0.8)
    assert end == pytest.approx((0.8, 0.0))
    assert tuple(picture.rgb()[128, 190]) == canvas.BLUE
