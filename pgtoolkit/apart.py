"""Calls a function in a process of its own, for code that may end or block its process."""

import faulthandler
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn, final

POLL_SECONDS = 0.002


@final
class Apart(NamedTuple):
    """What became of a call in a process of its own."""

    text: str | None
    """What the function returned; None if it did not."""
    end: str = ""
    """How the process ended if the function did not return."""


def call_apart(function: Callable[[], str], seconds: float = math.inf) -> Apart:
    """Calls a function in a forked process, whose output is discarded.

    Where the system cannot fork, the function is called in this process.

    Args:
        function: returns a text; an exception counts as an end of its process.
        seconds: after these the process is killed.
    """
    if not hasattr(os, "fork"):
        return Apart(function())
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(function, writer)
    os.close(writer)
    with open(reader, "rb") as answer:
        code = _wait(child, time.monotonic() + seconds)
        if code is None:
            return Apart(None, f"no answer within {seconds:g} s")
        if code == 0:
            return Apart(answer.read().decode(errors="replace"))
    name = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    return Apart(None, f"its process ended with {name}")


def _answer(function: Callable[[], str], writer: int) -> NoReturn:
    """Writes what the function returns, and ends the process."""
    code = 1
    faulthandler.disable()  # a crash is what may be found out here
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(null, descriptor)
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        # What fits into a pipe at once: nobody reads before the process ends.
        os.write(writer, function().encode(errors="replace")[:4096])
        code = 0
    finally:
        os._exit(code)


def _wait(child: int, ends_at: float) -> int | None:
    """The exit code of a process, or minus its signal; None if it was killed at the end."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > ends_at:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(POLL_SECONDS)
