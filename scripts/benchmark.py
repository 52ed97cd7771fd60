"""``pgtoolkit benchmark``: how fast we are, beside what a user would otherwise use."""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.benchmarks.hardware import pin, versions
from pgtoolkit.scripts.benchmarks.timing import Case, Row, measure
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.files import require_writable, write_json
from pgtoolkit.scripts.cli.registry import BENCHMARKS, known

FEWEST = 5
"""Repeats below which a median and its spread say little."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    """Times us and others on the same work, in turns, in one process, on one core.

    A peer that is not installed is named and left out. A target that is missed is reported; the
    exit code stays 0.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which benchmarks; default: all. --list names them."""
    json: Path | None = None
    """Write the rows to this file: a list of one object a row."""
    repeats: int = 7
    """Turns of each side, at least 5; the turns that warm up are not counted."""
    list: bool = False
    """Name the benchmarks and stop."""

    def __post_init__(self) -> None:
        if self.repeats < FEWEST:
            raise RequestError(f"--repeats must be at least {FEWEST}, not {self.repeats}")
        for name in self.names:
            known(name, BENCHMARKS, "benchmark")


def run(arguments: Sequence[str]) -> None:
    """Measures, shows, writes.

    Raises:
        RequestError: no such benchmark, or a file that cannot be written.
    """
    options = parse(BenchmarkArguments, arguments, command="benchmark")
    if options.list:
        width = max(map(len, BENCHMARKS))
        for name, (_, note) in BENCHMARKS.items():
            print(f"{name:<{width}}  {note}")
        return
    if options.json is not None:
        require_writable(options.json, "--json")
    pin()
    # Only now, because they import torch.
    from pgtoolkit.scripts.benchmarks.report import header, show
    from pgtoolkit.scripts.cli.malloc import keep_freed_memory

    keep_freed_memory()
    found = versions()
    header(found)
    written: list[dict[str, Any]] = []
    for name in options.names or BENCHMARKS:
        rows = measure_benchmark(name, options.repeats)
        show(name, BENCHMARKS[name][1], rows)
        written += [dataclasses.asdict(row) | {"versions": found} for row in rows]
        # After every one: they take minutes, and what is measured is not to be lost.
        if options.json is not None:
            write_json(options.json, written)


def measure_benchmark(name: str, repeats: int) -> Sequence[Row]:
    """A benchmark's rows: those of its cases, then those that it measures in its own way.

    Its module has ``cases() -> list[Case]``, or ``rows(repeats) -> list[Row]``, or both.
    """
    import torch

    torch.set_num_threads(1)
    module = importlib.import_module(BENCHMARKS[name][0])
    cases: list[Case] = getattr(module, "cases", list)()
    rows = [row for case in cases for row in measure(case, repeats)]
    other: Callable[[int], list[Row]] = getattr(module, "rows", lambda _: [])
    return [dataclasses.replace(row, benchmark=name) for row in [*rows, *other(repeats)]]


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
