"""Child processes of a comparison: each runs one command, and its output goes to files."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import final

from pgtoolkit.scripts.cli.files import make_folder

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
"""Environment variables of a child: as many children as cores leave each of them one core."""

PROGRESS = re.compile(r"^(\d+)/(\d+) steps", re.MULTILINE)
"""The progress lines of ``pgtoolkit train``."""

TAIL_BYTES = 4096

ERROR_LINES = 3
"""A command tells its failure in at most three lines."""


@final
@dataclasses.dataclass(frozen=True)
class Child:
    """A command that runs, and the files with its output."""

    process: "subprocess.Popen[bytes]"
    kind: str
    """The command's name."""
    output: Path
    errors: Path

    @classmethod
    def start(cls, arguments: list[str], log: Path) -> "Child":
        """Starts ``pgtoolkit ARGUMENTS``.

        The child is in a session of its own, so that a Ctrl-C reaches it through :meth:`stop` only:
        of two signals, the second would end it at once.

        Args:
            arguments: the command line.
            log: the files' name without ``.out`` and ``.err``.
        """
        output, errors = log.with_name(f"{log.name}.out"), log.with_name(f"{log.name}.err")
        command = [sys.executable, "-m", "pgtoolkit.scripts.comparison.child", *arguments]
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=os.environ | ONE_THREAD,
                start_new_session=True,
            )
        return cls(process, arguments[0], output, errors)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        """Asks it to stop: a training writes a checkpoint first."""
        assert self.process.stdin is not None, "it was started with a pipe"
        self.process.stdin.close()

    def wait(self) -> int:
        """Waits for its end, and returns the exit code."""
        return self.process.wait()

    def steps(self) -> int:
        """Environment steps so far, by its last progress line."""
        found = PROGRESS.findall(tail(self.output))
        return int(found[-1][0]) if found else 0

    def end_in_words(self) -> str:
        """How it ended, with its last lines on standard error."""
        lines = [line for line in tail(self.errors).splitlines() if line.strip()][-ERROR_LINES:]
        code = self.process.returncode
        how = f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
        return "\n".join((f"{self.kind}: {how}", *lines))


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def make_logs_folder(root: Path) -> Path:
    """Makes ``root/logs``, the folder for the output of the processes.

    Raises:
        RequestError: it cannot be made.
    """
    logs = root / "logs"
    make_folder(logs, "--run-dir")
    return logs


def tail(path: Path) -> str:
    """The end of a text file."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - TAIL_BYTES))
        return file.read().decode(errors="replace")
