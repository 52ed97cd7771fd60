"""The journal of a study: a file to which several processes append, whatever ends them."""

import os
from pathlib import Path
from typing import Any, final

from optuna.storages.journal import JournalFileBackend

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def open_journal(path: Path) -> JournalFileBackend:
    """The journal in a file, which need not exist."""
    lock: Any = None if fcntl is None else JournalLock(path)  # None: a lock of Optuna's
    return JournalFileBackend(str(path), lock)


@final
class JournalLock:
    """The lock under which a process appends to a journal: ``flock`` on a file beside it.

    The system releases it when the process ends, however it ends. Optuna's own locks are files that
    stay after a process that was killed, and make the others wait. Half a line, which a killed
    process or a full disk leaves, is cut off before the next one is written: Optuna could not read
    the journal otherwise.

    Args:
        journal: the journal's file.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Waits until no other process has the lock."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(f"{self.journal}.flock", flags, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor
        cut_off_half_line(self.journal)
        return True

    def release(self) -> None:
        descriptor = self._descriptor
        assert descriptor is not None, "it was acquired"
        self._descriptor = None
        os.close(descriptor)


def cut_off_half_line(path: Path) -> None:
    """Removes what follows the last end of a line of a file, if there is such a file."""
    try:
        with path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0 or _byte_at(path, size - 1) == b"\n":
                return
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
    except FileNotFoundError:
        return


def _byte_at(path: Path, place: int) -> bytes:
    with path.open("rb") as file:
        file.seek(place)
        return file.read(1)
