"""Several processes of a run inside a test: forked children with torchrun's variables."""

import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final

from pgtoolkit import parallel
from pgtoolkit.errors import LostProcessError
from pgtoolkit.scripts.reliability.parallel_runs import free_port


@final
class End(NamedTuple):
    """How a process ended."""

    value: Any
    """What its function returned; None if it raised."""
    error: str
    """What it raised; the message alone of one that has lost another process."""
    speaks: bool
    """Whether this process would tell of it."""


def in_processes(count: int, function: Callable[[], Any], folder: Path) -> list[Any]:
    """What the function returns in each process, in order of rank.

    A process that raises, dies or is not done in a minute fails the test with what it printed.
    """
    ends = ends_of_processes(count, function, folder)
    for rank, end in enumerate(ends):
        assert end is not None, f"process {rank} died or hung"
        assert not end.error, f"process {rank}: {end.error}"
    return [None if end is None else end.value for end in ends]


def ends_of_processes(count: int, function: Callable[[], Any], folder: Path) -> list[End | None]:
    """How each process ends, in order of rank; None for one that is killed or hangs."""
    port = f"{free_port()}"
    left: dict[int, int] = {}
    for rank in range(count):
        child = os.fork()
        if child == 0:
            job = {"RANK": f"{rank}", "WORLD_SIZE": f"{count}", "MASTER_ADDR": "127.0.0.1"}
            _run(function, job | {"MASTER_PORT": port}, folder / f"{rank}")
        left[rank] = child
    deadline = time.monotonic() + 60
    while left and time.monotonic() < deadline:
        left = {rank: child for rank, child in left.items() if not os.waitpid(child, os.WNOHANG)[0]}
        time.sleep(0.005)
    for child in left.values():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    paths = [folder / f"{rank}" for rank in range(count)]
    return [End(*pickle.loads(path.read_bytes())) if path.exists() else None for path in paths]


def _run(function: Callable[[], Any], variables: dict[str, str], path: Path) -> None:
    """A child: never returns."""
    os.environ.update(variables)
    value, error = None, ""
    try:
        with parallel.processes():
            value = function()
    except LostProcessError as lost:
        error = str(lost)
    except BaseException:
        error = traceback.format_exc()
    path.write_bytes(pickle.dumps((value, error, parallel.speaks())))
    os._exit(0)
