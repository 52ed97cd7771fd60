"""Runs that are killed and resumed; the long form is ``python scripts/studies/kill_runs.py``."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from pgtoolkit.scripts.reliability.killed_runs import KilledRunResult, _inspect
from pgtoolkit.scripts.reliability.run_comparison import scalar_differences, state_differences
from pgtoolkit.training.checkpoint import save_checkpoint
from pgtoolkit.training.run_folder import RunFolder

ROOT = Path(__file__).parents[3]


def test_five_kills_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "kills.json"
    command = [sys.executable, "scripts/studies/kill_runs.py", "--kills", "5", "--updates", "40"]
    done = subprocess.run(
        [*command, "--seed", "1", "--json", str(file)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert found["kills"] == 5 and found["runs"] >= 1 and found["violations"] == []
    assert "nothing lost, nothing different" in done.stdout


def test_one_bit_is_a_difference() -> None:
    one = {"a": [torch.tensor([0.0, float("nan")])], "b": 1.0, "c": None}
    assert (
        state_differences(one, {"a": [torch.tensor([0.0, float("nan")])], "b": 1.0, "c": None})
        == []
    )
    signed = {"a": [torch.tensor([-0.0, float("nan")])], "b": 1, "d": None}
    found = state_differences(one, signed)
    assert found == [
        "/c: only in one of them",
        "/d: only in one of them",
        "/a/0: differs",
        "/b: differs",
    ]


def test_scalars_differ_by_steps_and_values_but_not_by_times() -> None:
    one = {"x": [(1, 1.0), (2, float("nan"))], "time/fps": [(1, 10.0)], "y": [(1, 1.0)]}
    two = {"x": [(1, 1.0), (2, float("nan"))], "time/fps": [(1, 20.0)], "y": [(2, 1.0)]}
    assert scalar_differences(one, two) == ["y: 1 and 1 values, not the same"]
    assert scalar_differences({"time/fps": [(1, 1.0)]}, {"time/fps": [(2, 1.0)]}) != []
    assert scalar_differences({"x": [(1, 1.0)]}, {}) == ["x: 1 and 0 values, not the same"]


def test_lost_updates_are_violations(tmp_path: Path) -> None:
    """Five updates are saved: four or five may have been reported, six not."""
    run, result = RunFolder(tmp_path), KilledRunResult()
    run.write_config({})
    save_checkpoint(run.resume_file, {"progress": {"num_updates": 5}})
    for done, violations in ((4, 0), (5, 0), (6, 1)):
        _inspect(tmp_path, done, result)
        assert len(result.violations) == violations
    run.resume_file.write_bytes(b"torn")
    _inspect(tmp_path, 5, result)
    assert "no checkpoint can be read" in result.violations[-1]
