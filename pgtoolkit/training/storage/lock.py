"""The lock of a run folder: one process at a time writes it."""

import contextlib
import errno
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import final

from pgtoolkit.errors import RequestError, single_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOG = logging.getLogger("pgtoolkit")

LOCK_NAME = ".lock"

UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""Errors of a filesystem that has no locks."""

MAX_HOLDER_BYTES = 200

SECONDS_BETWEEN_TRIES = 0.02

_held: set[int] = set()
"""Descriptors of this process's locks."""


@final
class HeldError(RequestError):
    """Another process holds the lock of a folder."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder inside the block.

    The lock is ``flock`` on the file ``.lock``, so the system releases it when the process dies,
    however it dies. The file is removed at the end; it stays after a process that was killed. Where
    the filesystem or the system has no such lock, a warning says so, and nothing is locked.

    Args:
        folder: the run folder; it must exist.

    Raises:
        HeldError: another process holds the lock.
        RequestError: ``.lock`` is not an ordinary file, or it cannot be made.
    """
    if fcntl is None:
        LOG.warning("this system has no file locks: start no second run in %s", folder)
        yield
        return
    try:
        descriptor = _acquire(folder)
    except OSError as error:
        raise RequestError(
            f"the run folder {folder} cannot be written ({error.strerror}): make room there, or "
            "make it writable"
        ) from error
    _held.add(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK_NAME).unlink()
        _held.discard(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def locked_in_turn(folder: Path) -> Iterator[None]:
    """Waits until no other process holds the lock of a folder, and holds it inside the block.

    Args:
        folder: the folder; it must exist. Its lock is held for moments only.

    Raises:
        RequestError: as :func:`locked` does, but for another process that holds the lock.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except HeldError:
                time.sleep(SECONDS_BETWEEN_TRIES)
        yield


def is_locked(folder: Path) -> bool:
    """Whether another process holds the lock of a folder; False where that cannot be known.

    The file ``.lock`` is left as it is: one without a holder tells of a process that was killed.
    """
    if fcntl is None:
        return False
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _acquire(folder: Path) -> int:
    """A descriptor of the locked file."""
    path = folder / LOCK_NAME
    while True:
        descriptor = _open(path)
        try:
            _lock(descriptor, folder)
            if _is_still(path, descriptor):
                with contextlib.suppress(
                    OSError
                ):  # the disk may be full; the lock holds all the same
                    os.ftruncate(descriptor, 0)
                    os.write(
                        descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode()
                    )
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed the file while it was being opened


def _open(path: Path) -> int:
    """Opens an ordinary file, or makes it; follows no link."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise RequestError(f"{path} is not an ordinary file: remove it") from error
        raise
    found = os.fstat(descriptor)
    # A second name of the file may be in another folder, and a lock's holder is written into it.
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise RequestError(f"{path} is not an ordinary file of its own: remove it")
    return descriptor


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        text = os.read(descriptor, MAX_HOLDER_BYTES).decode(errors="replace")
        holder = single_line("".join(c for c in text if c.isprintable())) or "another process"
        raise HeldError(
            f"{folder} is being written by {holder}: wait until it ends, or stop it"
        ) from error
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        LOG.warning(
            "%s is on a filesystem without locks (%s): start no second run in it",
            folder,
            error.strerror,
        )


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _close_in_child() -> None:
    """A forked child shares its parent's locks, and would hold them after the parent's end."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
