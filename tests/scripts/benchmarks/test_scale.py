"""The ``scale`` benchmark: cost ratios and the growth of memory, from made-up measurements."""

import pytest

from pgtoolkit.scripts.benchmarks import scale
from pgtoolkit.scripts.benchmarks.timing import Seconds


def test_cost_is_compared_with_the_cheapest_so_far() -> None:
    """Seconds of a step: 1, 2 and 3; there are rows for more than 1024 environments only."""
    seconds = {"16": 16.0, "2048": 2 * 2048.0, "4096": 3 * 4096.0}
    samples = {name: [Seconds(x, x)] * 5 for name, x in seconds.items()}
    rows = scale.cost_increases("plain", 1, samples)
    assert [row.ratio for row in rows] == [2.0, 3.0]
    assert {row.peer for row in rows} == {"cheapest up to it, N = 16"}
    assert [row.reached for row in rows] == [False, False]


def test_cost_that_falls_does_not_rise() -> None:
    """Cost of a step: 9, 3, 2, 2.2: only the last is above the lowest before it."""
    cost = {"16": 9.0, "2048": 3.0, "4096": 2.0, "8192": 2.2}
    samples = {n: [Seconds(x * int(n), x * int(n))] * 5 for n, x in cost.items()}
    rows = scale.cost_increases("plain", 1, samples)
    assert [row.ratio for row in rows] == pytest.approx([1.0, 1.0, 1.1])
    assert [row.peer[-4:] for row in rows] == ["2048", "4096", "4096"]


def test_growth_is_a_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that grows as the root of the horizon has the power 1/2."""
    monkeypatch.setattr(scale, "memory", lambda kind, n, h: [n * h**0.5])
    row = scale.growth_row("checkpointed", "H", *scale.BY_HORIZON)
    assert row.ratio == pytest.approx(0.5) and row.reached is True


@pytest.mark.skipif(not scale.CLEAR_REFS.exists(), reason="needs Linux's /proc")
def test_peak_sees_memory_that_is_freed_again() -> None:
    """64 MB, with a margin for other memory of the process."""

    def work() -> None:
        assert len(b"x" * (64 * 2**20)) == 64 * 2**20

    assert 55 < scale.peak_memory(work) < 90
