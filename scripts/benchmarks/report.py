"""Terminal output of ``pgtoolkit benchmark``: a description of the machine, and tables."""

import statistics
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgtoolkit.scripts.benchmarks.hardware import is_busy
from pgtoolkit.scripts.benchmarks.timing import Row
from pgtoolkit.scripts.cli.formatting import format_number

PIPED_WIDTH = 118
"""Columns of the tables where the output is not a terminal."""

VERDICTS = {True: Text("reached", "green"), False: Text("missed", "bold red"), None: Text("")}


def console() -> Console:
    """A console as wide as the terminal, or ``PIPED_WIDTH`` columns without one."""
    width = None if Console().is_terminal else PIPED_WIDTH
    return Console(highlight=False, markup=False, width=width)


def show_machine(machine: Mapping[str, str | float | int | None]) -> None:
    """Prints versions and processor, and a warning if the load is too high for timings.

    Args:
        machine: a result of
            :func:`~pgtoolkit.scripts.benchmarks.hardware.describe_machine`.
    """
    out = console()
    out.print(", ".join(f"{name} {value}" for name, value in machine.items() if value is not None))
    load = machine["load"]
    if isinstance(load, float) and is_busy(load):
        out.print(
            f"Other processes use this machine (load {load}): absolute times are not reliable, and "
            "ratios less than usual. Run again when it is idle."
        )


def show_table(name: str, note: str, rows: Sequence[Row]) -> None:
    """Prints one benchmark's table, and below it the notes of its rows."""
    out = console()
    out.print(f"\n{name}: {note}", style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("case", "against", "ours", "theirs", "ratio", "target", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*cells(row), VERDICTS[row.reached])
    out.print(table)
    for row in rows:
        if row.ratio is not None and row.note:
            out.print(f"{row.case}: {row.note}", style="dim")


def cells(row: Row) -> tuple[str, ...]:
    """Case, peer, our figure, the peer's figure, ratio with its range, and target."""
    if row.ratio is None:
        return row.case, row.peer, "-", "-", row.note, ""
    low_high = "" if row.ratio_low is None else f" ({row.ratio_low:.2f} to {row.ratio_high:.2f})"
    sign = "<=" if row.goal == "at most" else ">="
    target = "" if row.target is None else f"{sign} {row.target:.3g}"
    return row.case, row.peer, *figures(row), f"{row.ratio:.3g}{low_high}", target


def figures(row: Row) -> tuple[str, ...]:
    """Our figure and the peer's: throughput, or the measured quantity where less is better."""
    ours, theirs = row.ours_cpu_s, row.peer_cpu_s
    if ours is None or theirs is None:
        medians = (statistics.median(x) for x in (row.ours, row.theirs))
        return tuple(f"{format_number(x)} {row.unit}" for x in medians)
    if row.goal == "at most" or row.throughput is None:
        return f"{format_number(ours)} s", f"{format_number(theirs)} s"
    # Both do the same work, so the peer's throughput follows from the times.
    peer_throughput = row.throughput * ours / theirs
    return f"{format_number(row.throughput)} {row.unit}/s", format_number(peer_throughput)
