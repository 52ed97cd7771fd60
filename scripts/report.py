"""``pgtoolkit report RUN... --output FILE``: one HTML page about runs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.files import require_writable

SUFFIXES = (".html", ".htm")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Writes one HTML page about runs: returns, gradients, bias, diagnosis, settings, versions.

    The file has everything in it and loads nothing. Runs with equal agent, environment and settings
    and different seeds are one line: the interquartile mean over the seeds with its 95 % bootstrap
    interval.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """The runs' folders; a folder that is none stands for all runs below it, such as that of a
    comparison."""
    output: Path = Path("report.html")
    """File for the page: .html."""


def run(arguments: Sequence[str]) -> None:
    """Reads the runs' events and writes the page.

    Raises:
        RequestError: there is no such run, two runs are the same one, or the file cannot be
            written.
    """
    options = parse(ReportArguments, arguments, command="report")
    if not options.runs:
        raise RequestError("name the runs: pgtoolkit report RUN... --output FILE")
    if options.output.suffix.lower() not in SUFFIXES:
        raise RequestError(f"--output must end in .html, not {options.output.name}")
    require_writable(options.output, "--output")
    from pgtoolkit.scripts.reporting.page import page
    from pgtoolkit.scripts.reporting.runs import read_experiments

    text = page(read_experiments(options.runs))
    try:
        options.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{options.output} cannot be written: {error.strerror}") from error
    print(options.output)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
