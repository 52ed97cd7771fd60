"""``pgtoolkit benchmark``: speed of this package and of its alternatives on the same work."""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import tyro

from pgtoolkit.scripts.benchmarks.hardware import describe_machine, pin_to_one_core
from pgtoolkit.scripts.benchmarks.timing import Case, Row, measure
from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import require_writable, write_json
from pgtoolkit.scripts.cli.registry import BENCHMARKS, lookup

MIN_REPEATS = 5
"""With fewer repeats, the median and the range of the ratio say little."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    """Times this package and others on the same work, in turns, in one process, on one core.

    A peer that is not installed is named and left out. A missed target is reported, but the exit
    code is still 0.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of the benchmarks to run, as --list shows them. Default: all."""
    json: Path | None = None
    """File for the results: a JSON list of one object for each row of the tables."""
    repeats: int = 7
    """Number of timed repeats of each side, at least 5; warm-up is not counted."""
    list: bool = False
    """List the benchmarks and exit."""

    def __post_init__(self) -> None:
        enough = self.repeats >= MIN_REPEATS
        require_options(self, {"repeats": (enough, f"at least {MIN_REPEATS}")})
        for name in self.names:
            lookup(name, BENCHMARKS, "benchmark")


def run(arguments: Sequence[str]) -> None:
    """Runs the benchmarks, prints their tables and writes the JSON file.

    Raises:
        RequestError: there is no such benchmark, or the file cannot be written.
    """
    options = parse(BenchmarkArguments, arguments, command="benchmark")
    if options.list:
        width = max(map(len, BENCHMARKS))
        for name, benchmark in BENCHMARKS.items():
            print(f"{name:<{width}}  {benchmark.note}")
        return
    if options.json is not None:
        require_writable(options.json, "--json")
    pin_to_one_core()
    # Imported after pinning, because these import torch.
    from pgtoolkit.scripts.benchmarks.report import show_machine, show_table
    from pgtoolkit.scripts.cli.malloc import keep_freed_memory

    keep_freed_memory()
    machine = describe_machine()
    show_machine(machine)
    written: list[dict[str, Any]] = []
    for name in options.names or BENCHMARKS:
        rows = measure_benchmark(name, options.repeats)
        show_table(name, BENCHMARKS[name].note, rows)
        written += [dataclasses.asdict(row) | {"versions": machine} for row in rows]
        # Written after each benchmark: they take minutes, and an interruption should lose one only.
        if options.json is not None:
            write_json(options.json, written)


def measure_benchmark(name: str, repeats: int) -> Sequence[Row]:
    """Runs one benchmark.

    Returns:
        The rows of its cases, then those of its module's ``rows(repeats)``, which measures in its
        own way; either may be missing.
    """
    import torch

    torch.set_num_threads(1)
    benchmark = BENCHMARKS[name]
    module = importlib.import_module(benchmark.module)
    cases: list[Case] = getattr(module, benchmark.cases, list)()
    rows = [row for case in cases for row in measure(case, repeats)]
    more_rows: Callable[[int], list[Row]] = getattr(module, "rows", lambda _: [])
    return [dataclasses.replace(row, benchmark=name) for row in [*rows, *more_rows(repeats)]]


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
