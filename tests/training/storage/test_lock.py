"""The lock of a run folder."""

import errno
import fcntl
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.training.storage import lock
from pgtoolkit.training.storage.lock import LOCK_NAME, is_locked, locked, locked_in_turn


def test_a_second_holder_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    """``flock`` belongs to the open file, so it excludes within one process as well."""
    words = f"is being written by process {os.getpid()} on "
    with locked(tmp_path), pytest.raises(RequestError, match=words), locked(tmp_path):
        pytest.fail("two holders")


def test_the_lock_is_free_again_and_its_file_gone(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path):
            assert (tmp_path / LOCK_NAME).exists()
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_whether_a_folder_is_locked_can_be_asked_and_changes_nothing(tmp_path: Path) -> None:
    """Of a folder without a lock, with one, and with the file of a process that was killed."""
    assert not is_locked(tmp_path) and not is_locked(tmp_path / "none")
    with locked(tmp_path):
        assert is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / LOCK_NAME).touch()
    assert not is_locked(tmp_path) and (tmp_path / LOCK_NAME).exists()


def test_a_killed_holder_leaves_the_file_and_no_lock(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            (tmp_path / "held").touch()
            time.sleep(60)
        os._exit(0)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(RequestError, match=f"process {child} on"), locked(tmp_path):
        pytest.fail("two holders")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / LOCK_NAME).exists()
    with locked(tmp_path):
        pass


def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    """It outlives the block; it would hold the lock if it had the file open."""
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            (tmp_path / "runs").touch()
            time.sleep(60)
            os._exit(0)
        while not (tmp_path / "runs").exists():
            time.sleep(0.01)
        (tmp_path / LOCK_NAME).rename(tmp_path / "kept")  # the file itself, not a new one
    (tmp_path / "kept").rename(tmp_path / LOCK_NAME)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_that_was_removed_and_made_again_is_another_one(tmp_path: Path) -> None:
    """The holder that removes its file at the end must not let two others in."""
    first = lock._open(tmp_path / LOCK_NAME)
    (tmp_path / LOCK_NAME).unlink()
    assert not lock._is_still(tmp_path / LOCK_NAME, first)
    second = lock._open(tmp_path / LOCK_NAME)
    assert lock._is_still(tmp_path / LOCK_NAME, second)
    assert not lock._is_still(tmp_path / LOCK_NAME, first)
    os.close(first)
    os.close(second)


def symbolic(path: Path, target: Path) -> None:
    path.symlink_to(target)


def hard(path: Path, target: Path) -> None:
    path.hardlink_to(target)


@pytest.mark.parametrize("link", [symbolic, hard])
def test_no_link_is_followed(tmp_path: Path, link: Any) -> None:
    target, folder = tmp_path / "target", tmp_path / "run"
    target.write_text("mine")
    folder.mkdir()
    link(folder / LOCK_NAME, target)
    with pytest.raises(RequestError, match="not an ordinary file"), locked(folder):
        pytest.fail("locked")
    assert target.read_text() == "mine"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_an_ordinary_file_is_opened(tmp_path: Path, make: Any) -> None:
    make(tmp_path / LOCK_NAME)
    with pytest.raises(RequestError, match="not an ordinary file"), locked(tmp_path):
        pytest.fail("locked")


def test_a_filesystem_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        pass
    (record,) = caplog.records
    assert "without locks" in record.getMessage()


def test_a_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []
    assert len(caplog.records) == 1


def test_a_folder_that_cannot_be_written_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="No such file"), locked(tmp_path / "nowhere"):
        pytest.fail("locked")


def test_a_lock_that_is_held_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """A thread takes it as soon as it is free, and not before."""
    order: list[str] = []

    def wait() -> None:
        with locked_in_turn(tmp_path):
            order.append("second")

    with locked(tmp_path):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
