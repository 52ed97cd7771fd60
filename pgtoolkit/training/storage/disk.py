"""Failures to write a run folder: a full, read-only or removed disk."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pgtoolkit.errors import RunFileError


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """A block that writes files of a run folder and nothing else.

    Raises:
        RunFileError: in the place of an ``OSError``. An environment may raise an ``OSError`` too,
            so outside such a block it could not be told whose it is.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFileError(f"the run folder {folder} cannot be written: {reason}") from error
