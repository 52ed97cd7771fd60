"""Damaged run folders: a short form of the command, and its parts."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pgtoolkit.scripts.reliability import mutations
from pgtoolkit.scripts.reliability.damaged_runs import content_outside, empty_case, fault
from pgtoolkit.scripts.reliability.forked_command import Outcome
from pgtoolkit.scripts.reliability.small_runs import small_runs
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[3]
STATE: dict[str, Any] = {
    "agent": {"weight": torch.ones(2, 3), "count": 3, "pair": (1, 2.0), "flags": [True, False]},
    "progress": {0: "zero"},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the files of a run, of which only the kinds matter."""
    case = empty_case(tmp_path / "case")
    (case / "run/policy").mkdir(parents=True)
    for name in ("resume", "policy/best", "policy/last"):
        save_checkpoint(case / f"run/{name}.safetensors", STATE)
    (case / "run/config.yaml").write_text("agent: shac\nhidden: [4]\n")
    (case / "run/summary.json").write_text('{"steps": 3}\n')
    return case / "run"


@pytest.mark.parametrize("kind", mutations.MUTATIONS)
def test_every_kind_of_damage_changes_the_run_and_nothing_else(kind: str, run: Path) -> None:
    """Of ten draws one or another may put a value where it was already."""
    changed = 0
    for seed in range(10):
        case = empty_case(run.parents[1] / str(seed))
        shutil.copytree(run, case / "run")
        before = content_outside(case)
        assert mutations.MUTATIONS[kind][1](case / "run", random.Random(seed))
        assert content_outside(case) == before
        changed += content_of(case / "run") != content_of(run)
    assert changed >= 5


def content_of(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else None
        for path in folder.rglob("*")
    }


def test_the_same_seed_makes_the_same_damage(run: Path, tmp_path: Path) -> None:
    """A case can be taken again."""
    for seed in range(20):
        copies = [tmp_path / f"{seed} {k}" / "run" for k in range(2)]
        for copied in copies:
            shutil.copytree(run, copied)
        one, other = (mutations.damage(copied, random.Random(seed)) for copied in copies)
        assert one == other


@pytest.mark.parametrize("place", list(mutations.places_of(STATE)))
def test_one_value_is_replaced_and_the_rest_kept(place: Any) -> None:
    changed = mutations.replaced(STATE, place, "new")
    assert mutations.at(changed, place) == "new"
    assert mutations.at(STATE, place) != "new"
    assert type(mutations.at(changed, place[:-1])) is type(mutations.at(STATE, place[:-1])) or (
        not place
    )


def test_a_checksum_is_made_right_again(tmp_path: Path) -> None:
    """A changed tensor then loads, whether or not the format has a checksum."""
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, STATE)
    data = bytearray(path.read_bytes())
    assert mutations.sealed(bytes(data)) == bytes(data)
    place = bytes(data).rindex(torch.ones(6).numpy().tobytes())
    data[place : place + 4] = torch.zeros(1).numpy().tobytes()
    path.write_bytes(mutations.sealed(bytes(data)))
    assert load_checkpoint(path)["agent"]["weight"].flatten().tolist() == [0, 1, 1, 1, 1, 1]


def outcome(code: int = 0, errors: str = "", **changes: Any) -> Outcome:
    plain: dict[str, Any] = {"output": "", "interrupted": False, "where": "", "outside": []}
    return Outcome(arguments=["resume"], code=code, errors=errors, **(plain | changes))


def test_what_counts_as_a_fault(tmp_path: Path) -> None:
    case = empty_case(tmp_path / "case")
    before = content_outside(case)
    assert fault(outcome(), case, before) is None
    assert fault(outcome(2, "error: why\n"), case, before) is None
    assert "traceback" in str(fault(outcome(1, "Traceback (most recent call last):"), case, before))
    assert "exit code -6" in str(fault(outcome(-6), case, before))
    assert "4 lines" in str(fault(outcome(2, "a\nb\nc\nd\n"), case, before))
    assert "20 s" in str(fault(outcome(interrupted=True), case, before))
    (case / "elsewhere/file").write_text("changed")
    assert "changes what is outside of the run" in str(fault(outcome(), case, before))


def test_there_is_a_small_run_of_every_agent() -> None:
    from pgtoolkit.scripts.cli.registry import AGENTS

    assert {small.agent for small in small_runs()} == set(AGENTS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_damaged_runs_end_in_a_line(tmp_path: Path) -> None:
    """``python scripts/studies/damage_runs.py`` on one run of each kind of agent and 45 cases.

    It runs in a process of its own: this one has used torch's threads, and must not fork.
    """
    command = [
        sys.executable,
        str(ROOT / "scripts" / "studies" / "damage_runs.py"),
        "--mutations",
        "45",
    ]
    found = subprocess.run(
        [*command, "--keep", str(tmp_path)], capture_output=True, text=True, timeout=600
    )
    assert found.returncode == 0, found.stdout + found.stderr
