"""Speed of a run and the time that is left, on a clock of our own."""

import pytest

from pgtoolkit.scripts.cli.display.pace import RECENT_SECONDS, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_run_without_steps_has_no_speed() -> None:
    pace = Pace(500, Clock())
    assert pace.steps_per_second is None and pace.seconds_left(1000) is None
    pace.mark(500)
    assert pace.steps_per_second is None


def test_the_steps_of_before_a_resume_do_not_count() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    for steps in (1100, 1200, 1300):
        clock.now += 2
        pace.mark(steps)
        assert pace.steps_per_second == 50
    assert pace.seconds_left(1500) == 4
    assert pace.seconds_left(1000) == 0


def test_a_slow_first_update_is_no_estimate() -> None:
    """It compiles. A time left from it would be hours for a run of a minute."""
    clock = Clock()
    pace = Pace(0, clock)
    for seconds, steps in ((60, 100), (1, 200)):
        clock.now += seconds
        pace.mark(steps)
        assert pace.seconds_left(1000) is None
    clock.now += 1
    pace.mark(300)
    assert pace.seconds_left(1000) == 7


def test_the_speed_is_that_of_the_last_half_minute() -> None:
    """A first update that took a minute is forgotten; the time left follows."""
    clock = Clock()
    pace = Pace(0, clock)
    clock.now += 60
    pace.mark(100)
    for steps in range(200, 200 + 100 * 40, 100):
        clock.now += 1
        pace.mark(steps)
    assert pace.steps_per_second == pytest.approx(100)
    assert pace.seconds_left(5000) == pytest.approx((5000 - steps) / 100)
    assert RECENT_SECONDS < 40
