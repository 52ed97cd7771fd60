"""TensorBoard's event file, written in this thread, under a name that is read after all others."""

import itertools
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import Any, final

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import FileWriter, SummaryWriter

from pgtoolkit.training.storage.crc32c import masked_crc32c

EVENT_FILE_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\..*")

BUFFER_BYTES = 2**16
"""Bytes of records that wait in memory before they are written."""

SECONDS_BETWEEN_WRITES = 3.0
"""Seconds after which :meth:`EventFile.write_if_old` writes the waiting records."""


def next_name(folder: Path) -> str:
    """A name that TensorBoard reads after all event files of the folder.

    It reads them in the order of their names, ``events.out.tfevents.SECONDS.HOST.PROCESS``, and a
    purge voids what was read before. So the seconds are those of the clock, or one more than the
    largest in the folder: the clock may have been set back, and a run may stop and go on within
    one second.
    """
    names = (EVENT_FILE_NAME.fullmatch(entry.name) for entry in os.scandir(folder))
    newest = max((int(name[1]) for name in names if name is not None), default=-1)
    seconds = max(int(time.time()), newest + 1)
    host = re.sub(r"[^\w-]", "-", socket.gethostname())
    return f"events.out.tfevents.{seconds:010d}.{host}.{os.getpid()}"


@final
class EventFile:
    """An event file: records of TensorBoard's ``Event`` messages.

    It does what tensorboard's ``EventFileWriter`` does, without a thread: an error is raised where
    the record is written, and by :meth:`flush`. After an error the file ends with a whole record,
    and the records that were not written stay in memory, for the next attempt.

    Args:
        folder: the run folder.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._size = folder, 0
        self._waiting = bytearray()
        self._last_write = time.monotonic()
        self._descriptor: int | None = _create(folder)
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write_waiting()

    def add_event(self, event: Any) -> None:
        """Adds an ``Event``; it is in the file after :meth:`flush` or :meth:`write_if_old`."""
        self._waiting += record(event.SerializeToString())
        if len(self._waiting) > BUFFER_BYTES:
            self._write_waiting()

    def write_if_old(self) -> None:
        """Writes the waiting records if the last write was some seconds ago.

        To be called after a row of scalars, not before it: the next row may be minutes away.
        """
        if time.monotonic() - self._last_write > SECONDS_BETWEEN_WRITES:
            self._write_waiting()

    def get_logdir(self) -> str:
        return str(self.folder)

    def flush(self) -> None:
        """Writes all records through to the disk."""
        self._write_waiting()
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Writes what is left and closes the file, also where writing fails; twice is harmless."""
        descriptor = self._descriptor
        if descriptor is None:
            return
        try:
            self._write_waiting()
        finally:
            self._descriptor = None
            os.close(descriptor)

    def _write_waiting(self) -> None:
        if self._descriptor is None:
            return
        self._last_write = time.monotonic()
        written = 0
        try:
            while written < len(self._waiting):
                written += os.write(self._descriptor, bytes(self._waiting[written:]))
        except OSError:
            # Half a record would hide all that follow it.
            os.ftruncate(self._descriptor, self._size)
            os.lseek(self._descriptor, self._size, os.SEEK_SET)
            raise
        self._size += written
        self._waiting.clear()


def record(data: bytes) -> bytes:
    """The data as a record of TensorFlow's: its length, that one's checksum, it, its checksum."""
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(checksums) + data + next(checksums)


def _create(folder: Path) -> int:
    """Makes a new file and opens it; an existing file or link is left alone."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    for number in itertools.count():
        try:
            return os.open(folder / f"{next_name(folder)}.{number}", flags, 0o666)
        except FileExistsError:  # another process made it just now
            continue
    raise AssertionError("the count has no end")


@final
class _RecordsToEventFile(FileWriter):
    """torch's writer of events and summaries, on an :class:`EventFile`."""

    def __init__(self, events: EventFile) -> None:
        self.event_writer = events


@final
class EventFileSummaryWriter(SummaryWriter):
    """torch's ``SummaryWriter``, on an :class:`EventFile`.

    Args:
        folder: the run folder.
        purge_step: step from which the events of earlier files are void.

    Raises:
        OSError: the file cannot be written; also from every method that adds an event.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self.events = EventFile(folder)
        super().__init__(str(folder), purge_step=purge_step)

    def _get_file_writer(self) -> FileWriter:
        """The one writer of this run; torch's own method would make a thread and another file."""
        if self.file_writer is not None:
            return self.file_writer
        writer = _RecordsToEventFile(self.events)
        names: Any = self
        names.file_writer, names.all_writers = writer, {self.events.get_logdir(): writer}
        if self.purge_step is not None:
            writer.add_event(_session_start(), self.purge_step)
            self.purge_step = None
        return writer

    def close(self) -> None:
        """Writes what is left and closes the file, also where writing fails."""
        self.events.close()


def _session_start() -> Any:
    """The event by which TensorBoard voids what earlier files have from its step on."""
    return Event(session_log=SessionLog(status=SessionLog.START))
