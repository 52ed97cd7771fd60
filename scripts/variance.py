"""``pgtoolkit variance (RUN | --env ENV)``: which gradient estimator, up to which horizon."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.files import (
    number_or_null,
    require_picture,
    require_writable,
    write_json,
)
from pgtoolkit.scripts.variance_study.arguments import VarianceArguments

if TYPE_CHECKING:
    from pgtoolkit.estimators.horizon_study import Measurement
    from pgtoolkit.scripts.variance_study.subject import Subject


def run(arguments: Sequence[str]) -> None:
    """Parses, measures, reports.

    Raises:
        RequestError: no such run or environment, one that cannot do what is asked, or a file that
            cannot be written; before anything is measured.
        NonFiniteError: the environment went bad; what was measured before is reported first.
    """
    options = parse(VarianceArguments, arguments, command="variance")
    if options.json is not None:
        require_writable(options.json, "--json")
    if options.plot is not None:
        require_picture(options.plot, "--plot")
    from pgtoolkit.scripts.variance_study.subject import make_subject

    subject = make_subject(options)
    for note in subject.notes:
        print(note, flush=True)
    rows: list[Measurement] = []
    with reporting(subject, options, rows):
        measure(subject, options, rows)


def measure(subject: "Subject", options: VarianceArguments, rows: "list[Measurement]") -> None:
    """Adds the measurements of one horizon after the other to ``rows``."""
    from pgtoolkit.estimators.horizon_study import measure_horizon
    from pgtoolkit.scripts.variance_study.report import MeasuringView

    with MeasuringView(subject.horizons) as view:
        for horizon in subject.horizons:
            view.begin(horizon)
            found = measure_horizon(
                subject.env_for(horizon),
                subject.policy,
                horizon,
                trajectories=options.trajectories,
                estimators=subject.estimators,
                gamma=subject.gamma,
                seed=options.seed,
            )
            rows += found
            view.end(found)


@contextlib.contextmanager
def reporting(
    subject: "Subject", options: VarianceArguments, rows: "list[Measurement]"
) -> Iterator[None]:
    """Reports what was measured, also when the measuring is interrupted or goes bad."""
    try:
        yield
    except BaseException as error:
        if rows:
            report(subject, options, rows)
            error.add_note(f"(reported up to H = {rows[-1].horizon})")
        raise
    report(subject, options, rows)


def report(subject: "Subject", options: VarianceArguments, rows: "list[Measurement]") -> None:
    """The table, the advice, and the files."""
    from rich.console import Console

    from pgtoolkit.scripts.variance_study.report import footnotes, table

    # Files first: whoever reads a pipe may have had enough before its end.
    written: list[str] = []
    if options.json is not None:
        write_json(options.json, [as_json(row, subject, options) for row in rows])
        written.append(f"json: {options.json}")
    if options.plot is not None:
        from pgtoolkit.scripts.variance_study.plot import draw

        count = f"{options.trajectories:,} trajectories at each horizon"
        figure = draw(rows, f"{subject.env_name}\n{subject.policy_name}, {count}")
        figure.savefig(options.plot, dpi=150)
        written.append(f"plot: {options.plot}")
    # Whole lines for whoever reads a pipe, and no column squeezed out.
    single_line = not Console().is_terminal
    console = Console(highlight=False, markup=False, width=100 if single_line else None)
    console.print(table(rows))
    console.print(footnotes(rows), style="dim", soft_wrap=single_line)
    console.print(f"\n{advice(subject, rows)}", style="bold", soft_wrap=single_line)
    for line in written:
        print(line)


def advice(subject: "Subject", rows: "Sequence[Measurement]") -> str:
    """The closing sentence."""
    from pgtoolkit.scripts.variance_study.verdict import verdict

    if subject.no_gradient:
        return f"Use the score function: {subject.no_gradient}."
    return verdict(rows)


def as_json(row: "Measurement", subject: "Subject", options: VarianceArguments) -> dict[str, Any]:
    """One object of the JSON file: the measurement, what it is of, and null for NaN."""
    numbers = {
        name: number_or_null(value) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(row).items()
    }
    return numbers | {
        "env": subject.env_name,
        "env_kwargs": subject.env_kwargs,
        "policy": subject.policy_name,
        "gamma": subject.gamma,
        "seed": options.seed,
    }


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
