"""The benchmark of several processes, with a run of a second."""

import os

import pytest

from pgtoolkit.scripts.benchmarks import parallel

SMALL = {"agent": "ppo", "env": "CartPole-v1", "num_envs": 4, "n_steps": 8, "hidden": [4]}


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_row_compares_two_processes_with_one() -> None:
    row = parallel._row("small", SMALL | {"batch_size": 16}, 2)
    assert row.peer == "1 process" and row.repeats == 2
    assert row.ratio is not None and row.ratio > 0
    assert "exchanges" in row.note and "environments" in row.note


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
