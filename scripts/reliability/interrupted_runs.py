"""Commands in forked children, which import nothing anew, and stop themselves in mid-run."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from pgtoolkit.scripts.cli.main import dispatch, run_command
from pgtoolkit.scripts.cli.registry import load_agent

POLL_SECONDS = 0.01


@final
class Finished(NamedTuple):
    """How a command ended."""

    code: int | None
    """The exit code; minus the number of the signal that ended it; None if it took too long."""
    output: str

    @property
    def last_line(self) -> str:
        lines = self.output.strip().splitlines()
        return lines[-1] if lines else ""


def run_forked(
    arguments: Sequence[str],
    output: Path,
    *,
    timeout: float,
    prepare: Callable[[], None] = lambda: None,
) -> Finished:
    """Runs ``pgtoolkit ARGUMENTS`` in a forked child.

    Args:
        arguments: the command and its options.
        output: a file for what it prints.
        timeout: seconds after which it is killed.
        prepare: called in the child before the command.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become_command(arguments, output, prepare)
    ends_at = time.monotonic() + timeout
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return Finished(
                os.waitstatus_to_exitcode(status),
                output.read_text(encoding="utf-8", errors="replace"),
            )
        if time.monotonic() > ends_at:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Finished(None, output.read_text(encoding="utf-8", errors="replace"))
        time.sleep(POLL_SECONDS)


def signal_at_update(agent: str, number: int, which: signal.Signals) -> Callable[[], None]:
    """A function after which this process sends itself a signal during an update of the agent.

    Args:
        agent: the agent's name in the registry.
        number: of the update, from 1.
        which: the signal.
    """

    def prepare() -> None:
        kind: Any = load_agent(agent)[0]
        update, calls = kind.update, iter(range(1, number + 1))

        def counted(self: Any, window: Any) -> Any:
            if next(calls, None) == number:
                os.kill(os.getpid(), which)
            return update(self, window)

        kind.update = counted

    return prepare


def _become_command(arguments: Sequence[str], output: Path, prepare: Callable[[], None]) -> None:
    """Runs the command and ends the process."""
    code = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        # Python's own may be those of a caller that captures what is printed.
        sys.stdout, sys.stderr = (
            os.fdopen(k, "w", buffering=1, encoding="utf-8", closefd=False) for k in (1, 2)
        )
        # A command in the background of a shell, or under nohup, is started with some ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        prepare()
        run_command(lambda rest: dispatch(arguments[0], rest), list(arguments[1:]))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # the parent reads it in the output
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
