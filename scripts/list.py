"""``pgtoolkit list``: lists agents, environments, estimators and wrappers."""

import shutil
import sys
from collections.abc import Sequence

from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.scripts.cli.help.tables import table
from pgtoolkit.scripts.cli.registry import (
    AGENTS,
    EXPECTATION_NOTES,
    WRAPPERS,
    lookup,
    registered_env_ids,
)

ANY_WIDTH = 10_000
"""Columns that no entry has."""
KINDS = ("agents", "envs", "estimators", "wrappers")


def run(arguments: Sequence[str]) -> None:
    """Prints the entries of the kinds that were asked for; without arguments, of all kinds.

    Raises:
        RequestError: there is no such kind.
    """
    if "-h" in arguments or "--help" in arguments:
        print(
            "example:\n  pgtoolkit list agents envs\n\n"
            "usage: pgtoolkit list [agents|envs|estimators|wrappers] ...\n\n"
            "Without a kind all four are listed."
        )
        return
    for kind in arguments:
        lookup(kind, dict.fromkeys(KINDS), "kind")
    kinds = arguments or KINDS
    if "envs" in kinds:
        # Imported here, because NumPy's import takes 15 ms more from the deeper calls below: there
        # the end of a chunk of CPython's call stack is crossed, and the next chunk is allocated and
        # freed, a thousand times.
        import pgtoolkit.envs  # noqa: F401
    for kind in kinds:
        print(f"{kind}:")
        print(table(notes(kind), line_width()))


def line_width() -> int:
    """Columns of a terminal; in a file or a pipe every entry has one line, for `grep`."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else ANY_WIDTH


def notes(kind: str) -> dict[str, str]:
    """Name to description of all entries of one kind."""
    if kind == "agents":
        return {name: agent.note for name, agent in AGENTS.items()}
    if kind == "estimators":
        return {name: row.note for name, row in CATALOGUE.items()} | EXPECTATION_NOTES
    if kind == "wrappers":
        return {name: wrapper.note for name, wrapper in WRAPPERS.items()}
    return env_notes()


def env_notes() -> dict[str, str]:
    """Environments of this package and of plugins, then the forms in which others are named."""
    from pgtoolkit.envs.registry.plugins import register_plugins

    plugins = {name: f"of the package {package}" for name, package in register_plugins().items()}
    return (
        dict.fromkeys(registered_env_ids(), "differentiable")
        | plugins
        | {
            "any Gymnasium id": "differentiated by an adapter, such as Pendulum-v1, Reacher-v5",
            "module:Id-v0": "imports the module first",
            "path/to/file.py:Class": "a DifferentiableEnv or a gymnasium.Env of your own",
        }
    )


if __name__ == "__main__":
    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
