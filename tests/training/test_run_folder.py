"""The run folder: made once, opened again, never half written."""

import json
import os
from datetime import datetime, tzinfo
from pathlib import Path

import pytest
import yaml

from pgtoolkit.errors import RequestError
from pgtoolkit.training import run_folder
from pgtoolkit.training.run_folder import RunFolder, default_path, versions


def test_a_run_comes_back_with_its_configuration_and_the_versions(tmp_path: Path) -> None:
    """The configuration keeps its order; a tuple comes back as a list."""
    config = {"env": "Pendulum-v1", "gamma": 0.99, "hidden": (64, 64), "flag": True, "none": None}
    made = RunFolder.create(tmp_path / "a" / "b", config)
    assert made.policy_file("last").parent.is_dir()
    opened, found = RunFolder.open(tmp_path / "a" / "b")
    assert opened == made
    assert list(found) == [*config, "versions"]
    assert found | {"hidden": (64, 64)} == config | {"versions": versions()}


def test_a_number_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    """3e-5 too, which YAML writes in a form that some readers take for text."""
    config = {"x": 3e-5, "y": 0.1 + 0.2, "z": 1e22}
    RunFolder.create(tmp_path / "run", config)
    found = RunFolder.open(tmp_path / "run")[1]
    assert {key: found[key] for key in config} == config


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    """The message names the command that continues it; nothing has changed."""
    run = RunFolder.create(tmp_path / "run", {"x": 1})
    with pytest.raises(RequestError, match="pgtoolkit resume"):
        RunFolder.create(tmp_path / "run", {"x": 2})
    assert RunFolder.open(run.path)[1]["x"] == 1


def test_a_place_where_no_folder_can_be_made_is_a_request_error(tmp_path: Path) -> None:
    """A file has the name that the folder's parent would need."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="--run-dir"):
        RunFolder.create(tmp_path / "file" / "run", {})


@pytest.mark.parametrize(
    "text", [None, "", "[1, 2]", "a: [", "just text", "\x00", "a: !!python/x 1"]
)
def test_what_is_no_run_is_a_request_error_of_one_line(tmp_path: Path, text: str | None) -> None:
    """Missing, empty, not a mapping, not YAML, or YAML that would make an object."""
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RequestError) as caught:
        RunFolder.open(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_summary_is_replaced_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before the rename leaves the old one."""
    run = RunFolder.create(tmp_path / "run", {})
    run.write_summary({"mean": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_, **__: (_ for _ in ()).throw(OSError("stop")))
        with pytest.raises(OSError, match="stop"):
            run.write_summary({"mean": 2.0})
    assert json.loads(run.summary_file.read_text()) == {"mean": 1.0}
    run.write_summary({"mean": 3.0})
    assert json.loads(run.summary_file.read_text()) == {"mean": 3.0}


def test_the_default_path_says_what_runs_and_is_one_folder() -> None:
    """A namespaced id, a path and a class: no character that a shell or a path would take."""
    for env in ("pgtoolkit/Pendulum-v0", "my envs/file.py:Class", "../../up", "a:b*c"):
        path = default_path(env, "shac", 7)
        assert path.parent == Path("runs")
        assert "__shac__7__" in path.name
        assert not set(path.name) & set("/\\:* ")


def test_runs_that_start_in_the_same_second_have_different_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of them, from one process: whatever the clock says, no path that exists is given."""

    class Stopped:
        @staticmethod
        def now(zone: tzinfo) -> datetime:
            return datetime(2026, 1, 2, 3, 4, 5, tzinfo=zone)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "datetime", Stopped)
    assert default_path("E", "a", 0) == Path("runs/E__a__0__20260102-030405")
    for _ in range(3):
        path = default_path("E", "a", 0)
        assert not path.exists()
        RunFolder.create(path, {})


def test_versions_name_what_numbers_depend_on() -> None:
    """The versions name python, torch, gymnasium and numpy, and YAML can hold them."""
    found = versions()
    assert {"python", "torch", "gymnasium", "numpy"} <= set(found)
    assert yaml.safe_load(yaml.safe_dump(found)) == found
