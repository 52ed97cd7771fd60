import numpy as np
import pytest
import torch

from pgtoolkit.envs.analytic.lqg.env import LQG, LQGState
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.rendering import canvas

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def ink(picture: np.ndarray) -> float:
    """The covered share of the picture, black on white."""
    return float(1 - picture.mean() / 255)


def test_an_empty_canvas() -> None:
    picture = canvas.blank(8, colour=(1, 2, 3)).rgb()
    assert picture.shape == (8, 8, 3) and picture.dtype == np.uint8
    assert (picture == (1, 2, 3)).all()


def test_a_disc_covers_its_area() -> None:
    picture = canvas.disc(canvas.blank(200, 1.0, WHITE), (0.1, 0.2), 0.5, BLACK).rgb()
    assert ink(picture) == pytest.approx(np.pi * 0.25 / 4, rel=2e-3)


def test_a_segment_covers_its_area() -> None:
    picture = canvas.segment(canvas.blank(200, 1.0, WHITE), (-0.5, 0), (0.5, 0), 0.2, BLACK)
    assert ink(picture.rgb()) == pytest.approx((0.2 + np.pi * 0.01) / 4, rel=5e-3)


def test_a_segment_without_length_is_a_disc() -> None:
    blank = canvas.blank(64, 1.0, WHITE)
    dot = canvas.segment(blank, (0.2, 0.1), (0.2, 0.1), 0.4, BLACK).rgb()
    np.testing.assert_array_equal(dot, canvas.disc(blank, (0.2, 0.1), 0.2, BLACK).rgb())


def test_y_points_up_and_x_to_the_right() -> None:
    picture = canvas.disc(canvas.blank(40, 1.0, WHITE), (0.5, 0.5), 0.2, BLACK).rgb()
    assert (picture[10, 30] == 0).all() and (picture[30, 10] == 255).all()


def test_edges_are_smooth_and_the_original_is_unchanged() -> None:
    blank = canvas.blank(40, 1.0, WHITE)
    shades = np.unique(canvas.disc(blank, (0.0, 0.0), 0.503, BLACK).rgb())
    assert len(shades) > 5 and (blank.rgb() == 255).all()


def test_colours_are_mixed() -> None:
    assert canvas.mix(BLACK, WHITE, 0.5) == (128, 128, 128)
    assert canvas.mix(BLACK, WHITE, 7.0) == WHITE and canvas.mix(BLACK, WHITE, -1.0) == BLACK


def test_environments_draw_the_one_that_is_asked_for() -> None:
    states = torch.tensor([[0.5, -0.5, 0.0, 0.0], [-0.5, 0.5, 1.0, 0.0]])
    first, second = (PointMass().render(states, i) for i in range(2))
    assert first.shape == (256, 256, 3) and not np.array_equal(first, second)


def test_the_pendulum_stands_upright_at_zero_and_leans_left_for_a_positive_angle() -> None:
    paper = np.array(canvas.BACKGROUND)
    for angle, row, column in ((0.0, 40, 128), (np.pi / 2, 128, 40), (-np.pi / 2, 128, 216)):
        picture = Pendulum().render(torch.tensor([[angle, 0.0]]), 0)
        assert tuple(picture[row, column]) == canvas.BLUE
    assert (Pendulum().render(torch.tensor([[0.0, 0.0]]), 0)[200, 128] == paper).all()


@pytest.mark.parametrize("size", [1, 2])
def test_lqg_draws_one_and_two_dimensions(size: int) -> None:
    env = LQG(A=np.eye(size), B=np.ones((size, 1)))
    picture = env.render(LQGState(torch.full((1, size), 1.5), torch.zeros(1)), 0)
    row = 128 if size == 1 else 64
    assert tuple(picture[row, 192]) == canvas.BLUE
