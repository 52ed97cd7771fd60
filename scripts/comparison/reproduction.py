"""Results of an experiment in its JSON file: reading, joining seeds, writing, judging."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.files import write_json
from pgtoolkit.scripts.cli.formatting import format_number, join_names, markdown_row
from pgtoolkit.scripts.comparison.results import result_from
from pgtoolkit.scripts.comparison.rows import Row
from pgtoolkit.scripts.comparison.table import (
    cpu_text,
    iqm_text,
    legend,
    return_text,
    seeds_text,
    steps_text,
)
from pgtoolkit.scripts.tables.reproductions import Bar, Experiment

HEADINGS = (
    "experiment",
    "environment",
    "obs.",
    "steps",
    "mean",
    "IQM [95 %]",
    "CPU s",
    "to reach",
    "reached",
)
SEED_HEADINGS = ("experiment", "return of each seed", "published")

ROW_FIELDS = (
    "label",
    "agent",
    "env",
    "observation_size",
    "action_size",
    "total_steps",
    "settings",
)


def result_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def read_row(path: Path) -> Row:
    """The row of an experiment's JSON file, with the experiment's name for a label.

    Raises:
        RequestError: the file cannot be read, or is none of an experiment.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found |= {"label": found["name"], "agent": found["algorithm"]}
        runs = [result_from(run) for run in found["runs"]]
        return Row(**{name: found[name] for name in ROW_FIELDS}, runs=runs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{path} holds no results of an experiment ({error}): name another folder with "
            "--output-dir, or remove it"
        ) from error


def require_joinable(path: Path, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Checks that results with these settings may be added to a file, before anything is run.

    Args:
        path: the file of an experiment; it need not exist.
        settings: all settings of the results to add.
        defaults: what a setting has in runs that were made before there was such a setting.

    Raises:
        RequestError: the file is none of an experiment, or its runs have other settings.
    """
    if not path.exists():
        return
    named = read_row(path).settings
    old = {**defaults, **named}
    different = [name for name in {**named, **settings} if old.get(name) != settings.get(name)]
    if different:
        raise RequestError(
            f"{path} holds runs with other settings ({join_names(different)}): seeds of both would "
            "be one result; remove it, or name another folder with --output-dir"
        )


def joined(path: Path, row: Row) -> Row:
    """The row with the runs of those seeds too that only the file has; none is dropped."""
    if not path.exists():
        return row
    new = {run.seed for run in row.runs}
    runs = [*row.runs, *(run for run in read_row(path).runs if run.seed not in new)]
    return dataclasses.replace(row, runs=sorted(runs, key=lambda run: run.seed))


def write_row(path: Path, name: str, experiment: Experiment, row: Row) -> None:
    """Writes the row, what it is to reach, and the published number.

    Raises:
        RequestError: the file cannot be written.
    """
    bar, published = experiment.bar, experiment.published
    head = {
        "name": name,
        "to_reach": None if bar is None else bar._asdict(),
        "reached": None if bar is None else reached(bar, row),
        "published": None if published is None else published._asdict(),
    }
    write_json(path, head | row.as_dict())


def reached(bar: Bar, row: Row) -> bool:
    """Whether the runs reach what they are to; an unknown CPU time does not."""
    returns, limit = row.final_returns, bar.most_cpu_seconds
    value = min(returns) if bar.on == "every seed" else sum(returns) / len(returns)
    in_time = limit is None or all(
        run.cpu_seconds is not None and run.cpu_seconds < limit for run in row.runs
    )
    return value >= bar.least_return and in_time


def bar_text(bar: Bar | None) -> str:
    """``-160 on every seed, under 20 CPU s``."""
    if bar is None:
        return "-"
    on = "on every seed" if bar.on == "every seed" else "in the mean"
    limit = bar.most_cpu_seconds
    time = "" if limit is None else f", under {format_number(limit)} CPU s"
    return f"{format_number(bar.least_return, 4)} {on}{time}"


def reached_text(bar: Bar | None, row: Row) -> str:
    """``yes``, or how many seeds of how many reach the return."""
    if bar is None:
        return "-"
    good = sum(value >= bar.least_return for value in row.final_returns)
    return f"{'yes' if reached(bar, row) else 'no'} ({good} of {len(row.runs)} seeds)"


def results_table(results: Sequence[tuple[Experiment, Row]]) -> str:
    """Two Markdown tables of experiments, what they reach and all their seeds, and a legend."""
    reached_lines = table_lines(HEADINGS, [cells(*result) for result in results])
    seed_lines = table_lines(SEED_HEADINGS, [seed_cells(*result) for result in results])
    return "\n".join([*reached_lines, "", *seed_lines, "", legend([row for _, row in results])])


def table_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [markdown_row(headings), "|" + "---|" * len(headings), *map(markdown_row, rows)]


def cells(experiment: Experiment, row: Row) -> list[str]:
    """What one experiment reaches."""
    return [
        row.label,
        row.env,
        str(row.observation_size),
        steps_text(row),
        return_text(sum(row.final_returns) / len(row.runs)),
        iqm_text(row),
        cpu_text(row),
        bar_text(experiment.bar),
        reached_text(experiment.bar, row),
    ]


def seed_cells(experiment: Experiment, row: Row) -> list[str]:
    """The seeds of one experiment, and a published number beside them."""
    published = experiment.published
    text = "-" if published is None else f"{published.text} ({published.source})"
    return [row.label, seeds_text(row), text]
