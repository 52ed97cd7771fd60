"""The folder of a new run: what a failed start removes, and what it leaves alone."""

import errno
from pathlib import Path

import pytest

from pgtoolkit.errors import RequestError, RunFileError
from pgtoolkit.training.run_folder import RunFolder
from pgtoolkit.training.storage.disk import writing
from pgtoolkit.training.storage.lock import LOCK_NAME
from pgtoolkit.training.storage.new_folder import (
    never_began,
    new_folder,
    require_begun,
    require_no_run,
)


def content(path: Path) -> list[str]:
    return sorted(found.relative_to(path).as_posix() for found in path.rglob("*"))


def fill(path: Path) -> None:
    """What a start writes before its first checkpoint."""
    RunFolder.create(path, {})
    (path / "events.out.tfevents.1").touch()
    (path / "policy" / "last.safetensors").touch()
    (path / ".resume.safetensors.0123456789abcdef.tmp").touch()


def test_a_failed_start_leaves_nothing_behind(tmp_path: Path) -> None:
    """The folders that it made go too."""
    path = tmp_path / "a" / "b"
    with pytest.raises(KeyError), new_folder(path):
        fill(path)
        raise KeyError
    assert content(tmp_path) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    for name in ("notes.txt", "policy/mine.txt", "events.out.tfevents.0", "summary.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = content(tmp_path)
    with pytest.raises(KeyError), new_folder(tmp_path):
        fill(tmp_path)
        (tmp_path / "written in the block.txt").touch()
        raise KeyError
    assert content(tmp_path) == sorted([*before, "written in the block.txt"])


def test_a_run_with_a_checkpoint_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "run"):
        fill(tmp_path / "run")
        RunFolder(tmp_path / "run").resume_file.touch()
        raise KeyError
    assert "run/resume.safetensors" in content(tmp_path)
    with pytest.raises(RequestError, match="already holds a run"):
        require_no_run(tmp_path / "run")


def test_a_full_disk_at_the_start_is_a_wrong_request(tmp_path: Path) -> None:
    with (
        pytest.raises(RequestError, match=r"cannot be made \(No space left on device\)"),
        new_folder(tmp_path / "run"),
        writing(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert content(tmp_path) == []


def test_a_full_disk_later_is_not(tmp_path: Path) -> None:
    with pytest.raises(RunFileError), new_folder(tmp_path), writing(tmp_path):
        RunFolder(tmp_path).resume_file.touch()
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_was_removed_in_the_run_is_no_failed_start(tmp_path: Path) -> None:
    with pytest.raises(RunFileError), new_folder(tmp_path / "run"), writing(tmp_path / "run"):
        (tmp_path / "run" / LOCK_NAME).unlink()
        (tmp_path / "run").rmdir()
        raise OSError(errno.ENOENT, "No such file or directory")


def test_a_start_that_was_killed_can_be_made_again(tmp_path: Path) -> None:
    """Killed between its configuration and the first checkpoint; the lock's file says so."""
    fill(tmp_path)
    (tmp_path / LOCK_NAME).touch()
    assert never_began(tmp_path)
    with pytest.raises(RequestError, match="train it again"):
        require_begun(tmp_path)
    require_no_run(tmp_path)
    with new_folder(tmp_path):
        assert content(tmp_path) == [LOCK_NAME, "policy"]


def test_a_configuration_alone_may_be_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("agent: shac")
    with pytest.raises(RequestError, match="already holds a run"), new_folder(tmp_path):
        pass
    assert content(tmp_path) == ["config.yaml"]


def test_the_second_of_two_starts_takes_nothing_from_the_first(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with new_folder(path):
        fill(path)
        before = content(path)
        with pytest.raises(RequestError, match="is being written by process"), new_folder(path):
            pytest.fail("two writers")
        assert content(path) == before
        RunFolder(path).resume_file.touch()
    assert (path / "config.yaml").exists()
