"""The folder of a new run: locked, and emptied again if the first checkpoint is not reached."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pgtoolkit.errors import RequestError, RunFileError
from pgtoolkit.training.run_folder import RunFolder
from pgtoolkit.training.storage.lock import LOCK_NAME, locked

OWN_FILES = re.compile(
    r"config\.yaml|summary\.json|resume(-\d+)?\.safetensors|events\.out\.tfevents\..*"
    r"|policy/(best|last)\.safetensors|(policy/)?[^/]*\.tmp"
)
"""Paths in a run folder of what `pgtoolkit train` writes there, beside the lock."""


def never_began(folder: Path) -> bool:
    """Whether a process was killed in the folder between ``config.yaml`` and the first checkpoint.

    Such a folder can neither be resumed nor does it hold anything that training anew would lose.
    """
    run = RunFolder(folder)
    lock_left = os.path.lexists(folder / LOCK_NAME)
    return lock_left and run.config_file.exists() and not run.resume_file.exists()


def require_no_run(folder: Path) -> None:
    """Checks that a new run can have this folder.

    Raises:
        RequestError: it holds a run.
    """
    if os.path.lexists(RunFolder(folder).config_file) and not never_began(folder):
        raise _holds_a_run(folder)


def require_begun(folder: Path) -> None:
    """Checks that a run has a first checkpoint.

    Raises:
        RequestError: it was killed before that.
    """
    if never_began(folder):
        raise RequestError(
            f"{folder} has no checkpoint: its process was killed before the first one; train it "
            "again, with the same --run-dir"
        )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Makes and locks the folder of a new run.

    If the block fails before the first checkpoint, what it wrote is removed, and nothing else, so
    that the folder can be trained into again.

    Raises:
        RequestError: the folder holds a run, another process writes it, or it cannot be written.
    """
    made, left_behind = _make(folder), never_began(folder)
    try:
        with locked(folder):
            if left_behind and not RunFolder(folder).resume_file.exists():
                _remove_own(folder, keep=frozenset())
            elif os.path.lexists(RunFolder(folder).config_file):
                raise _holds_a_run(folder)
            with _undone_without_checkpoint(folder):
                yield
    finally:
        if not RunFolder(folder).resume_file.exists():
            _remove_empty(made)


@contextlib.contextmanager
def _undone_without_checkpoint(folder: Path) -> Iterator[None]:
    """Removes the block's files if it fails before the first checkpoint."""
    keep, had_policies = frozenset(_files(folder)), (folder / "policy").is_dir()
    try:
        yield
    except BaseException as error:
        # A folder that is gone was removed by somebody in the run.
        if RunFolder(folder).resume_file.exists() or not folder.exists():
            raise
        _remove_own(folder, keep)
        _remove_empty([] if had_policies else [folder / "policy"])
        if isinstance(error, RunFileError):
            raise _cannot_be_made(folder, error.__cause__ or error) from error
        raise


def _holds_a_run(folder: Path) -> RequestError:
    return RequestError(
        f"{folder} already holds a run: continue it with `pgtoolkit resume {folder}`, or give "
        "another --run-dir"
    )


def _cannot_be_made(folder: Path, error: BaseException) -> RequestError:
    reason = getattr(error, "strerror", None) or error
    return RequestError(
        f"the run folder {folder} cannot be made ({reason}): make room or give another --run-dir"
    )


def _make(folder: Path) -> list[Path]:
    """Makes the folder and those above it; returns the new ones, the innermost first."""
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(folder, error) from error
    return missing


def _files(folder: Path) -> list[str]:
    """Paths of the files in the folder and in ``policy/``, relative to the folder."""
    found = [path for part in (folder, folder / "policy") for path in part.glob("*")]
    return [path.relative_to(folder).as_posix() for path in found if not path.is_dir()]


def _remove_own(folder: Path, keep: frozenset[str]) -> None:
    """Removes the files that a run writes, but for those to keep."""
    for name in _files(folder):
        if OWN_FILES.fullmatch(name) and name not in keep:
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def _remove_empty(folders: list[Path]) -> None:
    """Removes those folders that are empty; stops at the first that is not."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
