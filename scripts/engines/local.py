"""Commands in child processes on this machine, each with one thread."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import final

from pgtoolkit.scripts.engines.base import Log

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
"""Environment variables of a child: as many children as cores leave each of them one core."""


@final
@dataclasses.dataclass(frozen=True)
class Child:
    """A command in a child process, and the files with its output."""

    process: "subprocess.Popen[bytes]"
    log: Log

    @classmethod
    def start(cls, arguments: Sequence[str], log: Path, folder: Path | None = None) -> "Child":
        """Starts ``pgtoolkit ARGUMENTS``.

        The child is in a session of its own, so that a Ctrl-C reaches it through :meth:`stop` only:
        of two signals, the second would end it at once.

        Args:
            arguments: the command line.
            log: the files' name without ``.out`` and ``.err``.
            folder: where it runs; None for the present folder.
        """
        files = Log.of(log)
        command = [sys.executable, "-m", "pgtoolkit.scripts.engines.child", *arguments]
        with files.output.open("wb") as out, files.errors.open("wb") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=os.environ | ONE_THREAD,
                cwd=folder,
                start_new_session=True,
            )
        return cls(process, files)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        """Closes its pipe, which asks it to stop."""
        assert self.process.stdin is not None, "it was started with a pipe"
        self.process.stdin.close()

    def wait(self) -> int:
        code = self.process.wait()
        self.stop()  # closes the pipe
        return code


@final
class LocalEngine:
    """Child processes of this one."""

    def places(self, count: int) -> int:
        """The number of cores that this process may use."""
        return usable_cores()

    def start(self, arguments: Sequence[str], log: Path) -> Child:
        return Child.start(arguments, log)

    def batch(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def close(self) -> None:
        pass


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
