"""When a trial ends early: worked examples."""

import numpy as np
import pytest

from pgtoolkit.scripts.comparison.curves import Curve
from pgtoolkit.scripts.tuning.pruning import (
    FULL_TRIALS,
    Points,
    falls_behind,
    falls_out,
    values_at_points,
)


def curve(*pairs: tuple[float, float]) -> Curve:
    x, y = zip(*pairs, strict=True)
    return Curve(np.array(x, np.float64), np.array(y, np.float64))


def test_points_are_evaluations_of_all_seeds_in_order() -> None:
    points = Points(100, 25, seeds=2)
    assert points.steps == [25, 50, 75, 100]
    assert [points.point(1, s) for s in points.steps] == [125, 150, 175, 200]
    assert 1 in points.segment(100) and 0 not in points.segment(100)
    assert 101 in points.segment(150) and 100 not in points.segment(150)
    assert Points(100, 0, seeds=1).steps == []
    assert Points(100, 1000, seeds=1).steps == [100]


def test_no_trial_is_pruned_in_the_warm_up_of_a_seed_nor_at_the_end() -> None:
    points = Points(100, 10, seeds=2)
    allowed = [p for i in (0, 1) for s in points.steps if points.may_prune(p := points.point(i, s))]
    assert allowed == [30, 40, 50, 60, 70, 80, 90, 100, 130, 140, 150, 160, 170, 180, 190]


def test_between_evaluations_a_return_is_interpolated_and_seeds_are_averaged() -> None:
    """Seed 0: 0 at step 0, 10 at 100. Seed 1: evaluated at 20 and 60, and still at work."""
    points = Points(100, 25, seeds=2)
    first, second = curve((0, 0), (100, 10)), curve((20, 2), (60, 10))
    assert values_at_points([(first, True)], points) == {25: 2.5, 50: 5.0, 75: 7.5, 100: 10.0}
    found = values_at_points([(first, True), (second, False)], points)
    assert found[125] == pytest.approx((2.5 + 3.0) / 2)
    assert found[150] == pytest.approx((5.0 + 8.0) / 2)
    assert 175 not in found, "seed 1 has not come so far"


def test_a_run_that_has_ended_has_its_last_return_at_the_last_point() -> None:
    """The last window ends before total_steps where these are no multiple of it."""
    points = Points(100, 50, seeds=1)
    assert values_at_points([(curve((50, 1), (96, 2)), True)], points) == {50: 1.0, 100: 2.0}
    assert values_at_points([(curve((50, 1), (96, 2)), False)], points) == {50: 1.0}
    assert values_at_points([(None, False)], points) == {}


def test_a_trial_falls_behind_where_its_best_is_below_the_median() -> None:
    points = Points(100, 10, seeds=1)
    complete = [{30: value, 40: value} for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert falls_behind({30: 2.9}, complete, 30, points)
    assert not falls_behind({30: 3.0}, complete, 30, points)
    assert not falls_behind({30: 3.1, 40: -9.0}, complete, 40, points), "it was better before"
    assert not falls_behind({30: 0.0}, complete[: FULL_TRIALS - 1], 30, points)
    assert not falls_behind({20: 0.0}, [{20: 1.0}] * 9, 20, points), "the warm-up"


def test_a_seed_that_went_well_does_not_hide_one_that_goes_badly() -> None:
    points = Points(100, 50, seeds=2)
    complete = [{50: 5.0, 100: 5.0, 150: 5.0}] * FULL_TRIALS
    assert falls_behind({50: 9.0, 100: 9.0, 150: 4.0}, complete, 150, points)


def test_rungs_are_a_third_of_the_steps_a_ninth_and_so_on() -> None:
    points = Points(900, 100, 2)
    rungs = [p for p in range(1, 1801) if points.is_rung(p)]
    assert rungs == [100, 300, 1000, 1200]


def test_one_of_three_goes_on_at_a_rung() -> None:
    """The first there goes on if none is better; of six there are two that do."""
    points = Points(900, 100, 1)
    others = [{300: 1.0}, {300: 4.0, 600: 9.0}, {300: 3.0}, {300: 2.0}, {100: 9.0}, {300: 0.0}]
    assert not falls_out({300: 3.5}, others, 300, points)
    assert not falls_out({300: 5.0}, others, 300, points)
    assert falls_out({300: 2.5}, others, 300, points)
    assert not falls_out({300: -9.0, 600: -9.0}, others, 600, points)
    assert not falls_out({300: -9.0}, [], 300, points)
    assert falls_out({300: -9.0}, others[:1], 300, points)
