"""What ``pgtoolkit benchmark`` shows: a table for each benchmark."""

import statistics
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgtoolkit.scripts.benchmarks.hardware import busy
from pgtoolkit.scripts.benchmarks.timing import Row
from pgtoolkit.scripts.cli.files import short

WIDTH = 118

VERDICTS = {True: Text("reached", "green"), False: Text("missed", "bold red"), None: Text("")}


def console() -> Console:
    """Wide enough for the table where there is no terminal to ask."""
    return Console(highlight=False, markup=False, width=None if Console().is_terminal else WIDTH)


def header(found: Mapping[str, str | float | int | None]) -> None:
    """What runs where, and a warning if others use the machine."""
    out = console()
    out.print(", ".join(f"{name} {value}" for name, value in found.items() if value is not None))
    load = found["load"]
    if isinstance(load, float) and busy(load):
        out.print(f"the machine is busy (load {load}): read ratios only, and measure again")


def show(name: str, note: str, rows: Sequence[Row]) -> None:
    """Prints one benchmark's table."""
    out = console()
    out.print(f"\n{name}: {note}", style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("case", "against", "ours", "theirs", "ratio", "target", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*cells(row), VERDICTS[row.reached])
    out.print(table)


def cells(row: Row) -> tuple[str, ...]:
    """A row's case, peer, two figures, ratio with its spread, and target."""
    if row.ratio is None:
        return row.case, row.peer, "-", "-", row.note, ""
    spread = "" if row.ratio_low is None else f" ({row.ratio_low:.2f} to {row.ratio_high:.2f})"
    sign = "<=" if row.goal == "at most" else ">="
    target = "" if row.target is None else f"{sign} {row.target:.3g}"
    return row.case, row.peer, *figures(row), f"{row.ratio:.3g}{spread}", target


def figures(row: Row) -> tuple[str, ...]:
    """Ours and theirs: units a second; or seconds, or units, where less is better."""
    ours, theirs = row.ours_cpu_s, row.peer_cpu_s
    if ours is None or theirs is None:
        found = (statistics.median(x) for x in (row.ours, row.theirs))
        return tuple(f"{short(x)} {row.unit}" for x in found)
    if row.goal == "at most" or row.throughput is None:
        return f"{short(ours)} s", f"{short(theirs)} s"
    # The work is one, so the other's throughput follows from the times.
    return f"{short(row.throughput)} {row.unit}/s", short(row.throughput * ours / theirs)
