"""The table of a comparison, in Markdown."""

from collections.abc import Sequence

from pgtoolkit.scripts.cli.formatting import format_number, join_names, markdown_row
from pgtoolkit.scripts.comparison.rows import Row

HEADINGS = (
    "environment",
    "obs.",
    "agent",
    "steps",
    "IQM [95 %]",
    "mean",
    "least",
    "greatest",
    "return of each seed",
    "CPU s",
)

SEEDS_LEGEND = (
    "A seed's return is the mean undiscounted return of {episodes} deterministic episodes of its "
    "last policy, from starts that training has not seen. IQM: interquartile mean over the seeds, "
    "with its 95 % bootstrap interval{narrow}."
)

ENOUGH_SEEDS = 4
"""Of fewer, the percentile interval is far too narrow: of two it ends at the seeds themselves."""

SIZES_LEGEND = "obs.: size of an observation. steps: environment steps of a run."

CPU_LEGEND = "CPU s: mean CPU seconds of a run's training, without evaluations."


def markdown_table(rows: Sequence[Row]) -> str:
    """A row for each agent on each environment, and a legend that says what the numbers are."""
    lines = [markdown_row(HEADINGS), "|" + "---|" * len(HEADINGS)]
    lines += [markdown_row(cells(row)) for row in rows]
    return "\n".join((*lines, "", legend(rows)))


def legend(rows: Sequence[Row]) -> str:
    return " ".join((seeds_legend(rows), SIZES_LEGEND, CPU_LEGEND, versions_legend(rows)))


def seeds_legend(rows: Sequence[Row]) -> str:
    """What the returns are, and of how many episodes."""
    episodes = sorted({len(run.returns) for row in rows for run in row.runs})
    few = any(1 < len(row.runs) < ENOUGH_SEEDS for row in rows)
    narrow = ", which is too narrow for so few seeds" if few else ""
    return SEEDS_LEGEND.format(episodes=" or ".join(map(str, episodes)), narrow=narrow)


def versions_legend(rows: Sequence[Row]) -> str:
    runs = [run for row in rows for run in row.runs]
    versions = {f"{name} {text}" for run in runs for name, text in run.versions.items()}
    return f"Versions: {join_names(sorted(versions))}."


def cells(row: Row) -> list[str]:
    """The cells of one row."""
    returns = row.final_returns
    return [
        row.env,
        str(row.observation_size),
        row.label,
        steps_text(row),
        iqm_text(row),
        return_text(sum(returns) / len(returns)),
        return_text(min(returns)),
        return_text(max(returns)),
        seeds_text(row),
        cpu_text(row),
    ]


def steps_text(row: Row) -> str:
    """Steps of a run; of runs that differ, the range."""
    least, greatest = (f(run.steps for run in row.runs) for f in (min, max))
    return f"{least:,}" if least == greatest else f"{least:,} to {greatest:,}"


def iqm_text(row: Row) -> str:
    low, high = row.interval
    ends = "no interval" if low != low else f"{return_text(low)}, {return_text(high)}"
    return f"{return_text(row.iqm)} [{ends}]"


def seeds_text(row: Row) -> str:
    """``0: -130.1, 1: -139.2``; a note where episodes of the final evaluation were cut off."""
    pairs = (f"{run.seed}: {return_text(run.final_return)}" for run in row.runs)
    cut = sum(run.cut_off for run in row.runs)
    return join_names(pairs) + (f" ({cut} episodes cut off)" if cut else "")


def cpu_text(row: Row) -> str:
    known = [run.cpu_seconds for run in row.runs if run.cpu_seconds is not None]
    return f"{sum(known) / len(known):,.1f}" if known else "-"


def return_text(value: float) -> str:
    return format_number(value, 4)
