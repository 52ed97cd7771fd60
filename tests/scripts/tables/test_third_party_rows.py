"""The table of other packages' environments: cells by hand, and files that go on."""

import dataclasses
import json
from pathlib import Path

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.tables import third_party_rows
from pgtoolkit.scripts.tables.third_party_rows import (
    ENVS,
    ThirdPartyEnv,
    Trial,
    as_markdown,
    call,
    check_text,
    complete,
    find_rows,
    package_text,
    read_trials,
    version_of,
)

PONG = ThirdPartyEnv("ale_py:ALE/Pong-v5", "ale-py", ("--env-kwargs", '{"obs_type": "ram"}'))


def made(row: ThirdPartyEnv, train: str = "yes") -> Trial:
    return Trial(
        command=row.command,
        package="x 1.0",
        check="1 warning",
        train=train,
        evaluate="yes",
        faults=[],
    )


def test_a_command_can_be_pasted() -> None:
    """JSON is in single quotes, as a shell needs it."""
    assert PONG.command == """ale_py:ALE/Pong-v5 --env-kwargs '{"obs_type": "ram"}'"""
    assert ENVS[0].command == "BipedalWalker-v3"


def test_every_row_is_another_command() -> None:
    """The file is read by the command, so two rows must not share one."""
    assert len({row.command for row in ENVS}) == len(ENVS) >= 20


def test_the_default_is_what_is_installed() -> None:
    """Gymnasium's own environments are; the names of all are known."""
    assert {row.package for row in find_rows(())} <= {p.package for p in ENVS}
    assert "CliffWalking-v1" in {row.env for row in find_rows(())}
    assert [row.env for row in find_rows(["Taxi-v4"])] == ["Taxi-v4"]
    with pytest.raises(RequestError, match="Nothing-v0"):
        find_rows(["Nothing-v0"])


def test_versions_are_those_that_are_installed() -> None:
    assert version_of("no such distribution") is None
    assert package_text("gymnasium") == f"gymnasium {version_of('gymnasium')}"


def test_findings_are_counted_and_a_check_that_was_not_made_is_no_pass() -> None:
    found = [{"status": s} for s in ("pass", "warning", "not checked", "warning", "fault")]
    assert check_text(found) == "1 fault, 2 warnings, 1 not checked"
    assert check_text([{"status": "pass"}]) == "clean"


def test_a_study_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file holds is not tried again; each new trial is written at once."""
    file = tmp_path / "trials.json"
    file.write_text(json.dumps([dataclasses.asdict(made(ENVS[0], "refused: no"))]))
    monkeypatch.setattr(third_party_rows, "try_env", lambda row, timeout: made(row))
    trials = complete(file, ENVS[:3], 1.0)
    assert next(trials).command == ENVS[1].command
    assert [trial.command for trial in read_trials(file)] == [row.command for row in ENVS[:2]]
    assert len(list(trials)) == 1 and read_trials(file)[0].train == "refused: no"


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('[{"seed": 1}]')
    with pytest.raises(RequestError, match="holds no trials"):
        read_trials(file)
    assert read_trials(tmp_path / "none.json") == []


def test_the_table_is_in_the_lists_order() -> None:
    """Flags have a column; a bar in a message does not end a cell."""
    rows = as_markdown([made(ENVS[3], "refused: a | b"), made(ENVS[0])]).splitlines()
    assert rows[2].startswith("| `BipedalWalker-v3` |  | x 1.0 | 1 warning | yes |")
    assert rows[3].startswith("| `Taxi-v4` |") and "a \\| b" in rows[3]
    assert """`--env-kwargs '{"obs_type": "ram"}'`""" in as_markdown([made(PONG)])


def test_the_outcome_of_a_command() -> None:
    """A success, a refusal, and a process that does not end in time."""
    assert call("list", "agents", timeout=60) == "yes"
    assert call("train", "nothing", timeout=60).startswith("refused: there is no agent")
    assert call("list", "agents", timeout=0.01) == "no end within 0.01 s"
