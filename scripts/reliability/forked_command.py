"""A command line in a forked child, with limits of time, memory, file size and place.

The child has all modules of its parent, so it starts at once. It may write inside one folder only:
there an attempt to write elsewhere fails as it does for a user who has no right to.
"""

import dataclasses
import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, final

CAN_BE_WRITTEN = ("/dev/null", "/dev/full", "/dev/shm", "/proc/self")
"""Places outside the folder that hold nothing of a user."""

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

CHANGES = frozenset(
    ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.chmod", "os.symlink")
)
"""Audit events of a file that changes; a link's own path is its second argument."""


@final
@dataclasses.dataclass(frozen=True)
class Limits:
    """What a child may use."""

    seconds: float = 15.0
    """Seconds of the processor, which other processes do not lengthen; then it is interrupted as by
    Ctrl-C."""
    patience: float = 60.0
    """Seconds of the clock after which one that waits for something is interrupted."""
    grace: float = 15.0
    """Seconds of the clock after an interrupt; then it is killed."""
    memory: int = 6 * 2**30
    """Bytes of address space."""
    file_size: int = 50 * 2**20
    """Bytes of a file."""


@final
@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    arguments: list[str]
    code: int
    """The exit code; the negative number of the signal that ended it."""
    output: str
    errors: str
    interrupted: bool
    """Whether it was still at work after its seconds."""
    where: str
    """Where each thread was when it was interrupted; empty if it was not."""
    outside: list[str]
    """Paths outside the folder that it tried to write."""


def run_forked(arguments: Sequence[str], folder: Path, limits: Limits) -> Outcome:
    """Runs ``pgtoolkit ARGUMENTS`` in a child.

    Args:
        arguments: the command line after the program's name.
        folder: where it may write. The child works in ``folder/work/a/b/c``.
        limits: of time, memory and file size.
    """
    files = {name: folder / name for name in ("output", "errors", "where", "outside")}
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    child = os.fork()
    if child == 0:
        _run_child(list(arguments), folder, files, limits)
    code, interrupted = _wait(child, limits)
    output, errors, where, outside = (
        path.read_text(encoding="utf-8", errors="replace") for path in files.values()
    )
    return Outcome(list(arguments), code, output, errors, interrupted, where, outside.splitlines())


def _wait(child: int, limits: Limits) -> tuple[int, bool]:
    """Waits for the child; its exit code, and whether it was interrupted."""
    began, end = time.monotonic(), None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), end is not None
        now = time.monotonic()
        over = now > began + limits.patience or processor_seconds(child) > limits.seconds
        if over and end is None:
            end = now + limits.grace
            os.kill(child, signal.SIGUSR1)
            os.kill(child, signal.SIGINT)
        if end is not None and now > end:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)


def processor_seconds(process: int) -> float:
    """Seconds of the processor that a process has used, in all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _run_child(
    arguments: list[str], folder: Path, files: dict[str, Path], limits: Limits
) -> NoReturn:
    """In the child: sets the limits, runs the command and ends the process."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptors = {name: os.open(path, NEW_FILE, 0o600) for name, path in files.items()}
        for number, name in ((0, None), (1, "output"), (2, "errors")):
            source = os.open(os.devnull, os.O_RDONLY) if name is None else descriptors[name]
            os.dup2(source, number)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", closefd=False)
            for number, mode in enumerate("rww")
        )
        faulthandler.register(signal.SIGUSR1, file=descriptors["where"])
        _limit(folder, limits, descriptors["outside"])
        code = _exit_code(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
    finally:
        os._exit(code)
    raise AssertionError("unreachable")


def _limit(folder: Path, limits: Limits, report: int) -> None:
    """Limits memory, file size and the place where files are written."""
    os.chdir(folder / "work/a/b/c")
    tempfile.tempdir = str(folder / "work")
    names = ("HOME", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR")
    os.environ |= dict.fromkeys(names, str(folder / "work"))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_size, limits.file_size))
    sys.dont_write_bytecode = True
    inside = (str(folder.resolve()), *CAN_BE_WRITTEN)

    def refuse(event: str, details: tuple[Any, ...]) -> None:
        path = written_path(event, details)
        if path is not None and not path.startswith(inside):
            os.write(report, f"{path}\n".encode("utf-8", "backslashreplace"))
            raise PermissionError(13, "Permission denied", path)

    sys.addaudithook(refuse)


def written_path(event: str, details: tuple[Any, ...]) -> str | None:
    """The real path that an audit event writes to; None if it writes nothing."""
    if event == "open" and isinstance(details[0], str | bytes) and details[2] & WRITES:
        path = details[0]
    elif event in CHANGES:
        path = details[1] if event == "os.symlink" else details[0]
    else:
        return None
    return os.path.realpath(os.fsdecode(path)) if isinstance(path, str | bytes) else None


def _exit_code(arguments: list[str]) -> int:
    """Runs the command as the console script does."""
    from pgtoolkit.scripts.cli.main import main

    sys.argv = ["pgtoolkit", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
