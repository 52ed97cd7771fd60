"""``pgtoolkit COMMAND``: finds the command, runs it, and turns failures into exit codes."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from pgtoolkit.errors import NonFiniteError, RequestError, bounded
from pgtoolkit.scripts.cli.registry import COMMANDS, lookup
from pgtoolkit.scripts.cli.text import print_any_text, require_text


def main() -> NoReturn:
    """The entry point of the console command ``pgtoolkit``."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print_any_text()
        print(usage())
        sys.exit(0)
    if arguments[0] == "--version":
        from pgtoolkit.version import __version__

        print(__version__)
        sys.exit(0)
    run_command(lambda words: dispatch(words[0], words[1:]), arguments)


def dispatch(command: str, arguments: Sequence[str]) -> None:
    """Imports the command's module, and no other command's, and calls its ``run``.

    Raises:
        RequestError: there is no such command.
    """
    lookup(command, COMMANDS, "command")
    module = command.replace("-", "_")
    importlib.import_module(f"pgtoolkit.scripts.{module}").run(list(arguments))


def run_command(run: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> NoReturn:
    """Runs a command, then exits.

    Exit code 0: done; 1: a number became NaN or infinite; 2: the request is wrong; 130: interrupted
    from the keyboard.
    """
    print_any_text()
    try:
        require_text(arguments)
        run(arguments)
    except RequestError as error:
        print(f"error: {bounded(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        print(f"interrupted {' '.join(getattr(error, '__notes__', []))}".rstrip(), file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader closed the pipe. Discard what Python would still write to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except NonFiniteError as error:
        notes = " ".join(getattr(error, "__notes__", []))
        print(f"error: {bounded(f'{error} {notes}')}".rstrip(), file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def usage() -> str:
    """The text of ``pgtoolkit --help``."""
    width = max(len(name) for name in COMMANDS)
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "pgtoolkit: policy gradients by score function and pathwise, both measured\n\n"
        f"usage: pgtoolkit COMMAND [options]\n\n{rows}\n\n"
        "`pgtoolkit COMMAND --help` shows a command's options; `pgtoolkit --version` the version."
    )


if __name__ == "__main__":
    main()
