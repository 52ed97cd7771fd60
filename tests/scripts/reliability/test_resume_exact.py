"""The command that compares interrupted runs with whole ones."""

from pathlib import Path

import pytest
import torch

from pgtoolkit.scripts.reliability.compare_runs import leaves
from pgtoolkit.scripts.reliability.resume_rows import (
    Row,
    Setup,
    read_rows,
    setups,
    summary,
    try_setup,
    write_rows,
)

CARTPOLE = Setup("ppo", "CartPole-v1", "sync", "")


def test_a_killed_run_equals_a_whole_one() -> None:
    (row,) = try_setup(CARTPOLE, ["KILL"], seed=0, timeout=120)
    assert row.outcome == "equal" and row.note == "state restored", row.line


def test_what_cannot_be_trained_is_refused() -> None:
    setup = Setup("shac", "CartPole-v1", "sync", "")
    (row,) = try_setup(setup, ["KILL"], seed=0, timeout=120)
    assert row.outcome == "refused" and "no gradient" in row.note


def test_ours_are_compiled_and_plain() -> None:
    found = setups(["shac"], ["CartPole-v1", "pgtoolkit/Pendulum-v0"])
    assert [s.compile for s in found if s.env == "pgtoolkit/Pendulum-v0"] == ["never", "always"]
    assert {s.compile for s in found if s.env == "CartPole-v1"} == {""}


def test_rows_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    assert read_rows(file) == []
    rows = [Row("ppo", "X-v0", "sync", "", "INT", 3, outcome, "", 1.0) for outcome in ("equal",)]
    write_rows(file, rows)
    assert read_rows(file) == rows
    assert summary(rows) == "1 interruptions: 1 equal"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.float64)}),
        ({"a": torch.tensor([0.0])}, {"a": torch.tensor([-0.0])}),
        ({"a": [1, 2.0]}, {"a": [1, 2.5]}),
        ({"a": "x"}, {"a": None}),
    ],
)
def test_any_other_bit_is_a_difference(one: object, other: object) -> None:
    assert dict(leaves(one)) != dict(leaves(other))
    assert dict(leaves(one)) == dict(leaves(one))


def test_times_are_left_out() -> None:
    assert dict(leaves({"time/fps": 3.0, "update_seconds": 1.0})) == {}
