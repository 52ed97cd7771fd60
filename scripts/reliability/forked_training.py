"""Trainings in forked children: what a command imports is imported once, by the parent."""

import contextlib
import logging
import mmap
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch

from pgtoolkit.scripts import resume, train
from pgtoolkit.scripts.cli.display.run_views import Show, ShownRun
from pgtoolkit.scripts.cli.main import run_command
from pgtoolkit.scripts.cli.registry import load_agent
from pgtoolkit.training.progress import Progress

COMMANDS = {"train": train.run, "resume": resume.run}


@final
class ForkedTraining:
    """``pgtoolkit ARGUMENTS`` in a forked child.

    Args:
        arguments: of the command line, from ``train`` or ``resume`` on.
        output: file for what it prints.
        slow: seconds by which every flush to the disk and every renaming takes longer, so that
            kills fall into them; 0 for none.
        variables: of the child's environment.

    Attributes:
        pid: the child's process id.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        output: Path,
        slow: float = 0.0,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._count = mmap.mmap(-1, 8)  # shared with the child
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.update(variables or {})
            _run(arguments, output, slow, self._count)

    @property
    def num_updates(self) -> int:
        """Updates of the run that the child has finished, their checkpoints included."""
        return int(struct.unpack("q", self._count[:8])[0])

    def ended(self) -> int | None:
        """The exit code of a child that ended by itself; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self) -> int:
        """Waits for its end and returns the exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """Ends it by SIGKILL."""
        os.kill(self.pid, 9)
        self.wait()


def import_agent(name: str) -> None:
    """Imports what every child needs."""
    torch.set_num_threads(1)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every resumed run
    load_agent(name)


def _run(arguments: Sequence[str], output: Path, slow: float, count: mmap.mmap) -> None:
    """The child: never returns."""
    code = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(descriptor, number)
        _slow_down(slow)
        _count_updates(count)
        run_command(COMMANDS[arguments[0]], arguments[1:])
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def _slow_down(seconds: float) -> None:
    if not seconds:
        return
    system: Any = os
    fsync, replace = os.fsync, os.replace

    def slow_fsync(descriptor: int) -> None:
        time.sleep(seconds)
        fsync(descriptor)

    def slow_replace(*paths: Any, **folders: Any) -> None:
        time.sleep(seconds)
        replace(*paths, **folders)
        time.sleep(seconds)

    system.fsync, system.replace = slow_fsync, slow_replace


def _count_updates(count: mmap.mmap) -> None:
    kind: Any = ShownRun
    follow = kind.follow

    @contextlib.contextmanager
    def counting(view: ShownRun, total_steps: int, num_steps: int) -> Iterator[Show]:
        with follow(view, total_steps, num_steps) as show:

            def counted(progress: Progress) -> None:
                count[:8] = struct.pack("q", progress.num_updates)
                show(progress)

            yield counted

    kind.follow = counting
