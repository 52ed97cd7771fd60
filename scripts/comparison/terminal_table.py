"""The tables of a comparison on a terminal, within its width: one for each environment."""

import itertools
import math
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.scripts.comparison.rows import Row
from pgtoolkit.scripts.comparison.table import (
    CPU_LEGEND,
    cpu_text,
    return_text,
    seeds_legend,
    steps_text,
    versions_legend,
)

ENDS_LEGEND = "least, greatest: of the seeds; --json has the return of each."


def print_tables(rows: Sequence[Row], console: Console) -> None:
    """Prints a table for each environment, and what the numbers are.

    Args:
        rows: those of one environment stand together.
        console: its width is not exceeded: cells that are too long are folded.
    """
    for env, group in itertools.groupby(rows, key=lambda row: row.env):
        of_env = list(group)
        steps = join_names(dict.fromkeys(map(steps_text, of_env)))
        size = of_env[0].observation_size
        parts = f"observation of {size}", f"{steps} steps a run"
        console.print(f"{env}: {join_names(parts)}", markup=False, highlight=False)
        console.print(terminal_table(of_env), highlight=False)
        console.print()
    sentences = (seeds_legend(rows), ENDS_LEGEND, CPU_LEGEND, versions_legend(rows))
    console.print(" ".join(sentences), style="dim", markup=False, highlight=False)


def terminal_table(rows: Iterable[Row]) -> Table:
    """A line for each agent; cells that are too long go on below."""
    found = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    found.add_column("agent", overflow="fold")
    for title in ("IQM", "95 % interval", "least", "greatest", "CPU s"):
        found.add_column(title, justify="right", overflow="fold")
    for row in rows:
        found.add_row(*map(Text, cells(row)))
    return found


def cells(row: Row) -> list[str]:
    """The cells of one row. The returns of all seeds would need a column of their own width."""
    low, high = row.interval
    returns, cut = row.final_returns, sum(run.cut_off for run in row.runs)
    return [
        row.label + (f" ({cut} episodes cut off)" if cut else ""),
        return_text(row.iqm),
        "-" if math.isnan(low) else f"{return_text(low)}..{return_text(high)}",
        return_text(min(returns)),
        return_text(max(returns)),
        cpu_text(row),
    ]
