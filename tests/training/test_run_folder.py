"""The run folder: made once, opened again, never half written."""

import json
import logging
import os
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path

import pytest
import torch
import yaml

from pgtoolkit.errors import RequestError
from pgtoolkit.training import run_folder
from pgtoolkit.training.checkpoint import CheckpointError, load_checkpoint
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


WEIRD = ["", "file", "/dev/null", "a" * 5000, "a/" * 3000, "nul\0l", "loop", "\ud800"]


@pytest.mark.parametrize("name", WEIRD)
def test_a_weird_name_of_a_folder_is_a_request_error_of_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open a run, and (but for the empty name) to make one there."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("loop").symlink_to("loop")
    RunFolder.create(Path(), {})  # the empty name is not that of this folder
    with pytest.raises(RequestError) as caught:
        RunFolder.open(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    if name:
        with pytest.raises(RequestError, match="--run-dir"):
            RunFolder.create(Path(name), {})


def test_a_run_is_not_made_where_its_policies_would_go_elsewhere(tmp_path: Path) -> None:
    """A folder that was prepared with a link; nothing is written."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "policy").symlink_to("../outside")
    with pytest.raises(RequestError, match="leads out of"):
        RunFolder.create(tmp_path / "run", {})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["policy"]


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


def test_a_folder_of_runs_names_the_newest_ones(tmp_path: Path) -> None:
    """Not more than five; another folder in it is none of them."""
    for age, name in enumerate("abcdefg"):
        file = RunFolder.create(tmp_path / name, {"env": "Pendulum-v1"}).config_file
        os.utime(file, (1000 - age, 1000 - age))
    (tmp_path / "h").mkdir()
    with pytest.raises(RequestError) as caught:
        RunFolder.open(tmp_path)
    names = ", ".join(str(tmp_path / name) for name in "abcde")
    said = f"{tmp_path} is a folder of 7 runs: name one, the newest first: {names}, ..."
    assert str(caught.value) == said
    with pytest.raises(RequestError, match="h holds no run"):
        RunFolder.open(tmp_path / "h")
    (tmp_path / "env.py").touch()
    with pytest.raises(RequestError, match=r"env\.py is a file: name the folder"):
        RunFolder.open(tmp_path / "env.py")


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


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\U00010400"])
def test_the_default_path_of_a_long_name_is_one_that_can_be_made(
    letter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems allow 255 bytes; a letter may have four."""
    monkeypatch.chdir(tmp_path)
    path = default_path(letter * 240, "reinforce", 2**31 - 1)
    RunFolder.create(path, {})
    assert path.name.startswith(letter * 20) and "__reinforce__2147483647__" in path.name


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


def state(number: int) -> dict[str, torch.Tensor]:
    return {"x": torch.full((4,), float(number))}


def number_in(path: Path) -> int:
    return int(load_checkpoint(path)["x"][0])


def numbers(run: RunFolder) -> dict[str, int]:
    """Name to content of all resume files."""
    return {path.name: number_in(path) for path in sorted(run.path.glob("resume*"))}


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {})


def test_the_last_resume_files_are_kept(folder: RunFolder) -> None:
    """The newest has the plain name; where fewer are wanted, those too many go."""
    found = []
    for number, keep in ((1, 3), (2, 3), (3, 3), (4, 3), (5, 2), (6, 1), (7, 2)):
        folder.write_resume(state(number), keep)
        found.append(numbers(folder))
    newest, first, second = (f"resume{age}.safetensors" for age in ("", "-1", "-2"))
    assert found == [
        {newest: 1},
        {newest: 2, first: 1},
        {newest: 3, first: 2, second: 1},
        {newest: 4, first: 3, second: 2},
        {newest: 5, first: 4},
        {newest: 6},
        {newest: 7, first: 6},
    ]
    loaded, path = folder.read_resume()
    assert int(loaded["x"][0]) == 7 and path == folder.resume_file


def test_many_resume_files_may_be_wanted(folder: RunFolder) -> None:
    """The work is by the files that there are: this would not end if it were by their number."""
    for number in range(1, 5):
        folder.write_resume(state(number), 2**31 - 1)
    assert sorted(numbers(folder).values()) == [1, 2, 3, 4]


class Killed(BaseException):
    """The process ends here: whatever it would do next to the disk fails."""


SYSTEM_CALLS = ("open", "replace", "link", "unlink", "fsync")


def kill_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """From the ``step``-th of the calls that change a disk on, each raises :class:`Killed`."""
    done = [0]

    def counted(name: str) -> Callable[..., object]:
        call: Callable[..., object] = getattr(os, name)

        def counting(*arguments: object, **named: object) -> object:
            done[0] += 1
            if done[0] > step:
                raise Killed
            return call(*arguments, **named)

        return counting

    for name in SYSTEM_CALLS:
        patch.setattr(os, name, counted(name))


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_kill_at_any_step_of_writing_leaves_a_whole_file_of_the_newest_name(
    folder: RunFolder, keep: int, damaged: bool
) -> None:
    """Nothing is lost but the new state, and two kills in a row lose nothing more.

    After a damaged file, too: ``go_on_from`` puts the whole one in its place before.
    """
    step, finished = 0, False
    while not finished:
        for file in folder.path.glob("*resume*"):
            file.unlink()
        for number in (1, 2, 3):
            folder.write_resume(state(number), 2 if damaged else keep)
        before = 3
        if damaged:
            damage(folder.resume_file)
            before = 2
            folder.go_on_from(folder.read_resume()[1])
        for number in (4, 5):
            with pytest.MonkeyPatch.context() as patch:
                kill_at(patch, step)
                try:
                    folder.write_resume(state(number), keep)
                    finished, before = True, number
                except Killed:
                    pass
            assert number_in(folder.resume_file) in (before, number)
            before = number_in(folder.resume_file)
        kept = numbers(folder)
        if keep > 1 and not damaged:
            assert len(set(kept.values())) >= 2, "the one before is kept through kills"
        folder.go_on_from(folder.resume_file)
        assert not [path for path in folder.path.iterdir() if path.name.endswith(".tmp")]
        folder.write_resume(state(6), keep)
        assert number_in(folder.resume_file) == 6
        step += 1
    assert step > 5


@pytest.mark.parametrize("harm", ["flipped", "cut", "missing", "folder", "link", "pipe"])
def test_the_file_before_is_read_where_the_newest_is_not_whole(
    folder: RunFolder, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so; then that one is the newest, and damaged ones are kept no longer."""
    for number in (1, 2, 3):
        folder.write_resume(state(number), 3)
    newest = folder.resume_file
    if harm == "flipped":
        damage(newest)
    elif harm == "cut":
        newest.write_bytes(newest.read_bytes()[:-1])
    else:
        newest.unlink()
    if harm == "folder":
        newest.mkdir()
    elif harm == "link":
        newest.symlink_to("/dev/zero")
    elif harm == "pipe":
        os.mkfifo(newest)
    damage(folder.path / "resume-1.safetensors")
    loaded, path = folder.read_resume()
    assert int(loaded["x"][0]) == 1 and path.name == "resume-2.safetensors"
    assert caplog.text.count("\n") == 1 and str(newest) in caplog.text
    assert "going on from" in caplog.text and str(path) in caplog.text
    if harm == "folder":
        newest.rmdir()
    folder.go_on_from(path)
    folder.write_resume(state(4), 2)
    assert numbers(folder) == {"resume.safetensors": 4, "resume-1.safetensors": 1}


def test_without_a_whole_file_the_newest_is_named(folder: RunFolder) -> None:
    """None was written, or all are damaged: one line, and nothing is changed."""
    with pytest.raises(CheckpointError, match=r"resume\.safetensors cannot be read"):
        folder.read_resume()
    for number in (1, 2):
        folder.write_resume(state(number))
    for path in folder.path.glob("resume*"):
        damage(path)
    with pytest.raises(CheckpointError, match=r"resume\.safetensors is damaged") as caught:
        folder.read_resume()
    assert "\n" not in str(caught.value)


def test_a_file_of_a_newer_version_is_not_passed_over(folder: RunFolder) -> None:
    """An older state in its place would throw away what the newer version trained."""
    for number in (1, 2):
        folder.write_resume(state(number))
    data = folder.resume_file.read_bytes()
    changed = data.replace(b"checkpoint-2", b"checkpoint-3")
    changed = changed.replace(b"checksum", b"checkall")  # its checksum may be another one
    folder.resume_file.write_bytes(changed)
    with pytest.raises(RequestError, match="update pgtoolkit"):
        folder.read_resume()


def test_the_last_policy_is_read_where_the_best_is_damaged(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a best one the last is read in silence; both damaged are an error of one line."""
    folder.write_policy("last", state(1))
    assert number_in(folder.read_policy("best")[1]) == 1
    folder.write_policy("best", state(2))
    assert folder.read_policy("best")[1] == folder.policy_file("best")
    assert caplog.text == ""
    damage(folder.policy_file("best"))
    loaded, path = folder.read_policy("best")
    assert int(loaded["x"][0]) == 1 and path == folder.policy_file("last")
    assert caplog.text.count("\n") == 1 and "is used in its place" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    damage(folder.policy_file("last"))
    for which, name in (("best", "best"), ("last", "last")):
        with pytest.raises(CheckpointError, match=rf"{name}\.safetensors is damaged") as caught:
            folder.read_policy("best" if which == "best" else "last")
        assert "\n" not in str(caught.value)
