"""``pgtoolkit variance (RUN | --env ENV)``: which gradient estimator to use up to which horizon."""

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
    from pgtoolkit.scripts.variance_study.inputs import StudyInputs


def run(arguments: Sequence[str]) -> None:
    """Measures the estimators and reports the result.

    Raises:
        RequestError: no such run or environment, it cannot do what is asked, or a file cannot be
            written; raised before anything is measured.
        NonFiniteError: a number became NaN or infinite; the measurements made before are reported
            first.
    """
    options = parse(VarianceArguments, arguments, command="variance")
    if options.json is not None:
        require_writable(options.json, "--json")
    if options.plot is not None:
        require_picture(options.plot, "--plot")
    from pgtoolkit.scripts.variance_study.inputs import prepare_inputs

    inputs = prepare_inputs(options)
    for note in inputs.notes:
        print(note, flush=True)
    rows: list[Measurement] = []
    with reporting(inputs, options, rows):
        measure(inputs, rows)


def measure(inputs: "StudyInputs", rows: "list[Measurement]") -> None:
    """Measures one horizon after the other and appends the results to ``rows``."""
    from pgtoolkit.scripts.variance_study.report import MeasurementView

    with MeasurementView(inputs.horizons) as view:
        for horizon in inputs.horizons:
            view.begin(horizon)
            measured = inputs.measure(horizon)
            rows += measured
            view.end(measured)


@contextlib.contextmanager
def reporting(
    inputs: "StudyInputs", options: VarianceArguments, rows: "list[Measurement]"
) -> Iterator[None]:
    """Reports the rows at the end of the block, also when the block raises."""
    try:
        yield
    except BaseException as error:
        if rows:
            report(inputs, options, rows)
            error.add_note(f"(reported up to H = {rows[-1].horizon})")
        raise
    report(inputs, options, rows)


def report(inputs: "StudyInputs", options: VarianceArguments, rows: "list[Measurement]") -> None:
    """Writes the files, then prints the table and the advice."""
    from rich.console import Console

    from pgtoolkit.scripts.variance_study.report import footnotes, table

    # The files are written first: printing may fail when the reader closes the pipe.
    written: list[str] = []
    if options.json is not None:
        write_json(options.json, [as_json(row, inputs) for row in rows])
        written.append(f"json: {options.json}")
    if options.plot is not None:
        import matplotlib

        from pgtoolkit.scripts.variance_study.plot import draw

        count = f"{inputs.trajectories:,} trajectories at each horizon"
        figure = draw(rows, f"{inputs.env_name}\n{inputs.policy_name}, {count}")
        with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
            figure.savefig(options.plot, dpi=150)
        written.append(f"plot: {options.plot}")
    # Into a pipe: no wrapped sentences, and room for every column of the table.
    piped = not Console().is_terminal
    console = Console(highlight=False, markup=False, width=100 if piped else None)
    console.print(table(rows))
    console.print(footnotes(rows), style="dim", soft_wrap=piped)
    console.print(f"\n{advice(inputs, rows)}", style="bold", soft_wrap=piped)
    for line in written:
        print(line)


def advice(inputs: "StudyInputs", rows: "Sequence[Measurement]") -> str:
    """The closing sentences: which estimator to use, and why."""
    from pgtoolkit.scripts.variance_study.verdict import critic_verdict, verdict

    of_critic = critic_verdict(rows)
    if not inputs.no_gradient:
        return " ".join(part for part in (verdict(rows), of_critic) if part)
    if of_critic:
        return f"No pathwise gradient: {inputs.no_gradient}. {of_critic}"
    return f"Use the score function: {inputs.no_gradient}."


def as_json(row: "Measurement", inputs: "StudyInputs") -> dict[str, Any]:
    """One object of the JSON file: the measurement with null for NaN, and what was measured."""
    numbers = {
        name: number_or_null(value) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(row).items()
    }
    return numbers | {
        "env": inputs.env_name,
        "env_kwargs": inputs.env_kwargs,
        "policy": inputs.policy_name,
        "gamma": inputs.gamma,
        "seed": inputs.seed,
    }


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
