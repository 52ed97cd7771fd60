"""Files of a run: read only what is an ordinary file inside it, written in one go and by no link.

A run's folder may come from anybody, so nothing in it is taken on trust: a name may be a link to a
file elsewhere, a pipe that never answers, or a device without an end.
"""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

from pgtoolkit.errors import RequestError, single_line

MAX_NAME_IN_MESSAGE = 300
"""Characters of a path or of a text that a message repeats."""

TEMPORARY_NAME = re.compile(r"\.(?P<name>[\w.-]+)\.[0-9a-f]{16}\.tmp")
"""Names of unfinished files: the name of the file to be, and a random number of 64 bits."""


class RefusedFileError(RequestError):
    """A file or folder is not what a run has there: a pipe, a link that leads out, too large."""


def excerpt(value: object) -> str:
    """``str(value)`` on one line, its end left out where it is long."""
    text = single_line(value)
    return text if len(text) <= MAX_NAME_IN_MESSAGE else text[:MAX_NAME_IN_MESSAGE] + "..."


def system_reason(error: OSError | ValueError) -> str:
    """Why the system refused, such as "No space left on device", without the path."""
    return excerpt((error.strerror or error) if isinstance(error, OSError) else error)


@contextlib.contextmanager
def open_regular(path: Path, *, inside: Path | None, limit: int) -> Iterator[FileIO]:
    """Opens an ordinary file for reading; never waits, and never opens a device or a pipe.

    Args:
        path: the file.
        inside: the folder in which the file must be, after links are followed; None for anywhere.
        limit: the largest size that is read, in bytes.

    Raises:
        RefusedFileError: it is not an ordinary file, it is outside the folder, or it is too large.
        OSError: there is none, or the system refuses.
    """
    # The file is opened by its real path, so a link that is made in between is not followed.
    real = _real_path(path, inside)
    _require_regular(os.lstat(real), path)  # before it is opened: opening a device may act on it
    descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    with open(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        _require_regular(found, path)
        if found.st_size > limit:
            raise RefusedFileError(
                f"{excerpt(path)} has {found.st_size:,} bytes, and at most {limit:,} are read: it "
                "is not a file of a run"
            )
        yield file


def read_regular(path: Path, *, inside: Path | None, limit: int) -> bytes:
    """The content of an ordinary file.

    Args:
        path: the file.
        inside: the folder in which the file must be, after links are followed; None for anywhere.
        limit: the largest size that is read, in bytes.

    Raises:
        RefusedFileError: it is not an ordinary file, it is outside the folder, or it is too large.
        OSError: there is none, or the system refuses.
    """
    with open_regular(path, inside=inside, limit=limit) as file:
        # Some files of the system say that they are empty and are not.
        data = bytearray()
        while len(data) <= limit and (part := file.read(limit + 1 - len(data))):
            data += part
    if len(data) > limit:
        raise RefusedFileError(f"{excerpt(path)} is longer than {limit:,} bytes: shorten it")
    return bytes(data)


@contextlib.contextmanager
def open_folder(path: Path, *, inside: Path) -> Iterator[int]:
    """A descriptor of a folder: what is done through it is done in this folder and in no other.

    Raises:
        RefusedFileError: the folder is outside ``inside``, after links are followed.
        OSError: there is none, or the system refuses.
    """
    real = _real_path(path, inside)
    descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_unfinished(
    folder: int, name: str, parts: Iterable[bytes | memoryview], mode: int = 0o666
) -> str:
    """Writes a complete file under a fresh name, through to the disk.

    Its own name is exclusive: no file and no link that has it is opened. Where writing fails, the
    file is removed.

    Args:
        folder: a descriptor of the folder, from :func:`open_folder`.
        name: the name that the file will have.
        parts: the content, in order.
        mode: who may read and write it, before the user's mask.

    Returns:
        The fresh name, for :func:`finish`.

    Raises:
        OSError: the system refuses, such as on a full disk.
    """
    fresh = _fresh_name(name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(fresh, flags, mode, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        remove(folder, fresh)
        raise
    return fresh


def finish(folder: int, fresh: str, name: str) -> None:
    """Gives a file of :func:`write_unfinished` its name; a file or a link that had it goes.

    Raises:
        OSError: the system refuses; the unfinished file is removed.
    """
    try:
        rename(folder, fresh, name)
    except BaseException:
        remove(folder, fresh)
        raise
    os.fsync(folder)  # so that the new name is on disk too


def replace_file(path: Path, parts: Iterable[bytes | memoryview], *, inside: Path) -> None:
    """Writes a file in one go: after a crash it is either the old file or the complete new one.

    A link that has the name is replaced and not followed.

    Args:
        path: the file.
        parts: its content, in order.
        inside: the folder in which the file's folder must be, after links are followed.

    Raises:
        RefusedFileError: the file's folder is a link that leads out of ``inside``.
        OSError: the system refuses, such as on a full disk; nothing new is left behind.
    """
    with open_folder(path.parent, inside=inside) as folder:
        finish(folder, write_unfinished(folder, path.name, parts), path.name)


def remove(folder: int, name: str) -> None:
    """Removes a file or a link from a folder, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def rename(folder: int, name: str, other: str) -> None:
    """Gives a file another name in its folder; a file that had it goes.

    Raises:
        OSError: there is no such file, or the system refuses.
    """
    os.replace(name, other, src_dir_fd=folder, dst_dir_fd=folder)


def add_name(folder: int, name: str, other: str) -> None:
    """Gives a file a second name in its folder; a file that had it goes.

    The first name goes too where the file system has no second names.

    Raises:
        OSError: there is no such file, or the system refuses.
    """
    fresh = _fresh_name(other)
    try:
        os.link(name, fresh, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError:
        rename(folder, name, other)
    else:
        rename(folder, fresh, other)


def remove_unfinished(path: Path, names: re.Pattern[str], *, inside: Path) -> None:
    """Removes what killed runs left unfinished in a folder: ordinary files only.

    Args:
        path: the folder.
        names: the names that the files would have had.
        inside: the folder in which it must be, after links are followed.

    Raises:
        RefusedFileError: the folder is outside ``inside``.
        OSError: the system refuses.
    """
    with open_folder(path, inside=inside) as folder:
        for name in os.listdir(folder):
            unfinished = TEMPORARY_NAME.fullmatch(name)
            if unfinished is None or names.fullmatch(unfinished["name"]) is None:
                continue
            if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                remove(folder, name)


def require_inside(path: Path, folder: Path) -> None:
    """Checks that a path is in a folder, after links are followed.

    Raises:
        RefusedFileError: it is outside.
        OSError: there is none, or the system refuses.
    """
    _real_path(path, folder)


def _fresh_name(name: str) -> str:
    return f".{name}.{secrets.token_hex(8)}.tmp"


def _real_path(path: Path, inside: Path | None) -> str:
    """The path without links; it must exist, and be ``inside`` or in it."""
    try:
        real = os.path.realpath(path, strict=True)
        if inside is None:
            return real
        folder = os.path.realpath(inside, strict=True)
    except ValueError as error:  # a null character
        raise RefusedFileError(f"{excerpt(ascii(str(path)))} is not a path ({error})") from error
    if os.path.commonpath([real, folder]) != folder:
        raise RefusedFileError(
            f"{excerpt(path)} leads out of {excerpt(inside)}, to {excerpt(real)}: put the file "
            "itself there and not a link"
        )
    return real


def _require_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        raise RefusedFileError(f"{excerpt(path)} is {kind} and not a file: name another one")
