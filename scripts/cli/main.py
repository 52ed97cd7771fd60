"""``pgtoolkit COMMAND``: finds the command, runs it, and turns failures into exit codes."""

import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from pgtoolkit import parallel
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli import failures, streams
from pgtoolkit.scripts.cli.registry import COMMANDS, lookup
from pgtoolkit.scripts.cli.text import require_text
from pgtoolkit.training.stop import Interruption, handling, raise_interruption

PARALLEL = ("train", "resume")
"""Commands of which several processes can be one run."""


def main() -> NoReturn:
    """The entry point of the console command ``pgtoolkit``."""
    run_command(run_arguments, sys.argv[1:])


def run_arguments(arguments: Sequence[str]) -> None:
    """Shows the help or the version, or runs the command that the first argument names.

    Raises:
        RequestError: there is no such command.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
    elif arguments[0] == "--version":
        from pgtoolkit.version import __version__

        print(__version__)
    else:
        dispatch(arguments[0], arguments[1:])


def dispatch(command: str, arguments: Sequence[str]) -> None:
    """Imports the command's module, and no other command's, and calls its ``run``.

    Raises:
        RequestError: there is no such command.
    """
    lookup(command, COMMANDS, "command")
    if parallel.size() > 1 and command not in PARALLEL:
        raise RequestError(
            f"`pgtoolkit {command}` is a command of one process: start it without torchrun (it is "
            f"for {' and '.join(PARALLEL)})"
        )
    module = command.replace("-", "_")
    importlib.import_module(f"pgtoolkit.scripts.{module}").run(list(arguments))


def run_command(run: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> NoReturn:
    """Runs a command, then exits.

    Exit code 0: done; 1: it failed while running; 2: the request is wrong; 130, 143, 129: stopped
    by SIGINT, SIGTERM, SIGHUP. Errors are told in at most three lines; with PGTOOLKIT_TRACEBACK=1
    in the environment their tracebacks are shown too.
    """
    streams.prepare()
    with handling(raise_interruption):
        code = exit_code_of(run, arguments)
    error = streams.flush()
    if error is not None and not isinstance(error, BrokenPipeError) and code == 0:
        streams.report(f"error: standard output cannot be written ({error.strerror})")
        code = 1
    sys.exit(code)


def exit_code_of(run: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    """Runs a command, tells of its failure, and returns the exit code."""
    try:
        require_text(arguments)
        with parallel.processes():
            run(arguments)
    except BrokenPipeError as error:
        if failures.foreign_frame(error) is not None:
            return report_failure(error)
        streams.discard()  # the reader closed the pipe: it wants no more
    except (KeyboardInterrupt, SystemExit) as error:
        if not parallel.speaks():
            return 128 + error.signum if isinstance(error, Interruption) else 1
        by_signal = isinstance(error, Interruption)
        if not by_signal and failures.foreign_frame(error) is not None:
            return report_failure(error)  # raised by an environment
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        notes = " ".join(getattr(error, "__notes__", []))
        streams.report(f"interrupted {notes}".rstrip())
        return 128 + (error.signum if isinstance(error, Interruption) else signal.SIGINT)
    except Exception as error:
        return report_failure(error)
    return 0


def report_failure(error: BaseException) -> int:
    """Tells of a failure on standard error, and returns the exit code."""
    streams.flush()
    if not parallel.speaks():
        return failures.exit_code(error)
    trace = failures.wanted_traceback(error)
    streams.report(trace + failures.describe(error))
    return failures.exit_code(error)


def usage() -> str:
    """The text of ``pgtoolkit --help``."""
    from pgtoolkit.scripts.cli.help.tables import table, text_width

    return (
        "example:\n"
        "  pgtoolkit train shac --env pgtoolkit/Pendulum-v0\n\n"
        "usage: pgtoolkit COMMAND [options]\n\n"
        "Policy gradients by score function and pathwise, both measured.\n\n"
        f"{table(COMMANDS, text_width())}\n\n"
        "`pgtoolkit COMMAND --help` shows a command's options; `pgtoolkit --version` the\n"
        "version; `pgtoolkit completion bash` (or zsh) what completes them in a shell."
    )


if __name__ == "__main__":
    main()
