"""The event file: its name, its records, and what a full disk leaves behind."""

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event

from pgtoolkit.errors import RunFileError
from pgtoolkit.training.storage import event_file
from pgtoolkit.training.storage.event_file import BUFFER_BYTES, EventFile, next_name
from pgtoolkit.training.writer import RunWriter


def series(path: Path, tag: str) -> list[tuple[int, float]]:
    accumulator: Any = EventAccumulator(str(path), {"scalars": 0})
    accumulator.Reload()
    if tag not in accumulator.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def write(writer: RunWriter, *steps: int) -> None:
    for step in steps:
        writer.write({"x": torch.tensor(float(step))}, step)


@pytest.mark.parametrize("seconds", [0, -86_400, 86_400])
def test_a_resumed_run_is_read_after_the_first_one_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """Set back by a day, in the same second, or a day ahead."""
    now = time.time()
    with RunWriter(tmp_path) as writer:
        write(writer, 1, 2, 3)
    for start in (3, 4):
        monkeypatch.setattr(time, "time", lambda: now + seconds)
        with RunWriter(tmp_path, purge_step=start) as writer:
            write(writer, start)
    assert series(tmp_path, "x") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len({name.split(".")[3] for name in names}) == 3


def test_names_that_are_none_of_tensorboards_do_not_count(tmp_path: Path) -> None:
    seconds = f"{int(time.time()) + 1000:010d}"
    for name in ("events.out.tfevents.99999999999.x", "events.out.tfevents.x", seconds):
        (tmp_path / name).touch()
    assert next_name(tmp_path).split(".")[3] < seconds
    (tmp_path / f"events.out.tfevents.{seconds}.x").touch()
    assert int(next_name(tmp_path).split(".")[3]) == int(seconds) + 1


def test_no_thread_writes(tmp_path: Path) -> None:
    before = threading.active_count()
    with RunWriter(tmp_path) as writer:
        write(writer, 1)
        assert threading.active_count() == before


def test_a_row_is_in_the_file_after_a_flush_or_some_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written with the row itself and not with the next one, which may be minutes away."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with RunWriter(tmp_path) as writer:
        write(writer, 1)
        assert series(tmp_path, "x") == []
        writer.flush()
        assert series(tmp_path, "x") == [(1, 1.0)]
        clock[0] = 300.0
        write(writer, 2)
        assert series(tmp_path, "x") == [(1, 1.0), (2, 2.0)]


def test_many_records_do_not_wait_in_memory(tmp_path: Path) -> None:
    events = EventFile(tmp_path)
    (path,) = tmp_path.iterdir()
    small = path.stat().st_size
    record = Event(file_version="x" * (BUFFER_BYTES // 4))
    for _ in range(5):
        events.add_event(record)
    assert path.stat().st_size > small + BUFFER_BYTES
    events.close()
    events.close()


class FullDisk:
    """``os.write`` on a disk that has room for so many bytes more."""

    def __init__(self, room: int) -> None:
        self.room, self.write = room, os.write

    def __call__(self, descriptor: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.write(descriptor, data[: self.room])
        self.room -= written
        return written


def test_a_full_disk_leaves_whole_records_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a record would hide all that follow it; the records wait until there is room."""
    with RunWriter(tmp_path) as writer:
        write(writer, 1)
        writer.flush()
        write(writer, 2)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", FullDisk(10))
            with pytest.raises(RunFileError, match="No space left on device"):
                writer.flush()
        assert series(tmp_path, "x") == [(1, 1.0)]
        write(writer, 3)
    assert series(tmp_path, "x") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_failure_in_closing_hides_no_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", FullDisk(10_000))
    with pytest.raises(KeyError), RunWriter(tmp_path) as writer:
        write(writer, *range(1000))
        raise KeyError
    with pytest.raises(RunFileError), RunWriter(tmp_path):
        pass


def test_a_link_with_the_next_name_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the file is known beforehand by its seconds, host, process and number."""
    monkeypatch.setattr(event_file, "next_name", lambda _: "events.out.tfevents.0000000001.x")
    target, run = tmp_path / "target", tmp_path / "run"
    target.write_text("mine")
    run.mkdir()
    (run / "events.out.tfevents.0000000001.x.0").symlink_to(target)
    with RunWriter(run) as writer:
        write(writer, 1)
    assert target.read_text() == "mine"
    assert (run / "events.out.tfevents.0000000001.x.1").is_file()
