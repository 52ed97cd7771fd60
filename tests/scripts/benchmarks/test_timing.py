"""Two sides timed in turns, by a fake clock: no test depends on real time."""

import time
from collections.abc import Callable

import pytest

from pgtoolkit.scripts.benchmarks import timing
from pgtoolkit.scripts.benchmarks.timing import (
    NOT_INSTALLED,
    OURS,
    Case,
    Goal,
    Seconds,
    compare,
    is_reached,
    measure,
    take_turns,
)


class Clock:
    """A clock that advances only while a side works; wall time is twice the CPU time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.calls = 0.0, list[tuple[str, int]]()
        monkeypatch.setattr(time, "process_time", lambda: self.seconds)
        monkeypatch.setattr(time, "perf_counter", lambda: 2 * self.seconds)
        monkeypatch.setattr(timing, "_child_cpu_seconds", lambda: 0.0)

    def side(self, name: str, seconds: float) -> Callable[[], timing.Run]:
        """A side whose calls take so many CPU seconds."""

        def run(index: int) -> None:
            self.calls.append((name, index))
            self.seconds += seconds

        return lambda: run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def missing() -> timing.Run:
    """A side whose package is not installed."""
    raise ModuleNotFoundError("No module named 'peer'", name="peer")


def case(clock: Clock, goal: Goal = "at least") -> Case:
    """Our side takes 2 seconds for 10 units, the peer 6."""
    sides = {OURS: clock.side(OURS, 2.0), "peer": clock.side("peer", 6.0), "absent": missing}
    return Case("work", 10, "units", sides, {"peer": 2.5}, goal)


def test_a_ratio_of_throughput_is_ours_over_theirs(clock: Clock) -> None:
    """Ours is three times as fast; every figure of the row follows."""
    row, absent = measure(case(clock), 5)
    assert (row.case, row.peer, row.unit, row.repeats) == ("work", "peer", "units", 5)
    assert row.ratio == pytest.approx(3.0) and row.reached is True and row.target == 2.5
    found = [row.ratio_low, row.ratio_high, row.ours_cpu_s, row.peer_cpu_s]
    assert found == pytest.approx([3.0, 3.0, 2.0, 6.0])
    assert [row.ours_wall_s, row.peer_wall_s] == pytest.approx([4.0, 12.0])
    assert row.throughput == pytest.approx(5.0) and len(row.ours) == len(row.theirs) == 5
    assert absent.peer == "absent" and absent.ratio is None and absent.reached is None
    assert absent.note == f"{NOT_INSTALLED} (peer)"


def test_a_ratio_of_time_is_ours_over_theirs(clock: Clock) -> None:
    """A third of the peer's time meets a target of at most 2.5."""
    row = measure(case(clock, "at most"), 5)[0]
    assert row.ratio == pytest.approx(1 / 3) and row.reached is True


def test_our_own_side_must_be_there(clock: Clock) -> None:
    """A missing peer has no ratio; a missing side of ours raises."""
    with pytest.raises(ImportError):
        measure(Case("work", 1, "units", {OURS: missing}, {}), 5)


def test_the_sides_take_turns_and_short_work_is_repeated(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of 1 s is made three times in a repeat of 3 s, one of 10 s once."""
    monkeypatch.setattr(timing, "MIN_REPEAT_SECONDS", 6.0)  # of a clock that is twice as fast
    runs = {"short": clock.side("short", 1.0)(), "long": clock.side("long", 10.0)()}
    found = take_turns(runs, 2)
    assert found == {"short": [Seconds(1.0, 2.0)] * 2, "long": [Seconds(10.0, 20.0)] * 2}
    expected = [("short", 0)] * 3 + [("long", 0)] + [("short", 1)] * 3 + [("long", 1)]
    assert clock.calls[-len(expected) :] == expected


def test_the_ratio_is_the_median_of_pairs(clock: Clock) -> None:
    """The ratio is not that of the medians: a turn in which both are slow does not change it."""
    ours = [Seconds(x, x) for x in (1.0, 10.0, 2.0)]
    theirs = [Seconds(x, x) for x in (3.0, 20.0, 8.0)]
    row = compare(case(clock), "peer", ours, theirs)
    assert (row.ratio, row.ratio_low, row.ratio_high) == (3.0, 2.0, 4.0)
    assert (row.ours_cpu_s, row.peer_cpu_s) == (2.0, 8.0)


@pytest.mark.parametrize(
    ("ratio", "target", "goal", "expected"),
    [
        (2.0, 2.0, "at least", True),
        (1.9, 2.0, "at least", False),
        (1.3, 1.25, "at most", False),
        (1.2, 1.25, "at most", True),
        (1.0, None, "at least", None),
    ],
)
def test_targets(ratio: float, target: float | None, goal: Goal, expected: bool | None) -> None:
    """A target is reached, missed, or not given."""
    assert is_reached(ratio, target, goal) is expected
