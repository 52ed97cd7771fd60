"""The benchmark of several processes, with a run of a second."""

import os
import statistics

import pytest

from pgtoolkit.scripts.benchmarks import parallel
from pgtoolkit.scripts.benchmarks.report import show_table
from pgtoolkit.scripts.cli.formatting import format_number

SMALL = {"agent": "ppo", "env": "CartPole-v1", "num_envs": 4, "n_steps": 8, "hidden": [4]}


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_rows_compare_two_processes_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    """The figures of each row are those whose ratio it has."""
    clock, cpu = parallel._rows("small", SMALL | {"batch_size": 16}, 2)
    assert (clock.case, cpu.case) == ("small, by the clock", "small, by CPU seconds")
    for row in (clock, cpu):
        assert row.peer == "1 process" and row.repeats == 2
        assert min(row.ours + row.theirs) > 0
        both = zip(row.ours, row.theirs, strict=True)
        assert row.ratio == pytest.approx(statistics.median(a / b for a, b in both))
    show_table("parallel", "", [clock, cpu])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{format_number(statistics.median(clock.ours))} steps/s" in shown
    assert "of their time on exchanges" in shown and "in its environments" in shown


def test_a_turn_has_the_steps_of_its_updates() -> None:
    run = parallel._Run(SMALL | {"batch_size": 16}, 1)
    turn = run.turn()
    run.close()
    assert turn.steps == parallel.UPDATES * 4 * 8
    assert 0 == turn.exchanges < turn.stepping < turn.seconds.wall


def test_one_core_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    rows = parallel.rows(1)
    assert [row.note for row in rows] == ["needs two cores"] * len(parallel.CASES)
