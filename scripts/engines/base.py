"""What an engine does: it starts commands, which may run elsewhere, and says how they ended."""

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, final

PROGRESS = re.compile(r"^(\d+)/(\d+) steps", re.MULTILINE)
"""The progress lines of ``pgtoolkit train``."""

TAIL_BYTES = 4096

ERROR_LINES = 3
"""A command tells its failure in at most three lines."""


@final
class Log(NamedTuple):
    """The files of what a command prints; they may not be there yet."""

    output: Path
    errors: Path

    @classmethod
    def of(cls, name: Path) -> "Log":
        """``name.out`` and ``name.err``."""
        return cls(name.with_name(f"{name.name}.out"), name.with_name(f"{name.name}.err"))

    def steps(self) -> int:
        """Environment steps so far, by the last progress line."""
        found = PROGRESS.findall(tail(self.output))
        return int(found[-1][0]) if found else 0

    def last_errors(self) -> list[str]:
        """The last lines on standard error."""
        lines = [line for line in tail(self.errors).splitlines() if line.strip()]
        return lines[-ERROR_LINES:]


class Job(Protocol):
    """A command that was started."""

    @property
    def log(self) -> Log:
        """What it prints."""

    def ended(self) -> bool:
        """Whether it has ended, however."""

    def stop(self) -> None:
        """Asks it to stop: a training writes a checkpoint first. One that has ended is let be."""

    def wait(self) -> int | None:
        """Waits for its end. The exit code, or minus the signal; None if its machine was lost."""


class Engine(Protocol):
    """Starts commands of ``pgtoolkit``."""

    def places(self, count: int) -> int:
        """How many of ``count`` commands run at a time, where the user does not say it."""

    def start(self, arguments: Sequence[str], log: Path) -> Job:
        """Starts ``pgtoolkit ARGUMENTS``, with one thread, in the present folder.

        Args:
            arguments: the command line.
            log: the files' name without ``.out`` and ``.err``.
        """

    def batch(self) -> AbstractContextManager[object]:
        """A block whose commands may be submitted together at its end."""

    def close(self) -> None:
        """Gives back what the engine holds, when all commands have ended."""


def tail(path: Path) -> str:
    """The end of a text file; nothing if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
