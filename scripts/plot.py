"""``pgtoolkit plot RUN... --output FILE``: draws runs side by side."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, final

import tyro

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import require_picture

PanelName = Literal["return", "cpu", "variance", "cosine", "bias"]
EstimatorName = Literal["score_function", "pathwise", "mixed", "critic"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class PlotArguments:
    """Draws the returns of runs, and the variance, cosine and bias of their gradients.

    A column for each environment. Runs with equal agent, environment and settings and different
    seeds are one line: the interquartile mean over the seeds with its 95 % bootstrap interval. How
    often they were evaluated, logged and saved may differ.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """The runs' folders; a folder that is none stands for all runs below it, such as that of a
    comparison."""
    output: Path
    """File for the picture: .png, .svg or .pdf."""
    panels: tuple[PanelName, ...] = ("return", "variance", "cosine", "bias")
    """Quantities to draw, where runs have them. return: of evaluations, over environment steps;
    cpu: the same over the CPU seconds of training; variance, cosine and bias: of the gradient
    estimators that were measured."""
    estimators: tuple[EstimatorName, ...] = ("score_function", "pathwise", "mixed", "critic")
    """Gradient estimators to draw, where they were measured."""
    labels: tuple[str, ...] = ()
    """Names in the legend, one for each line of returns, in the order of the runs. Default: the
    agent, with the settings in which runs of one agent differ."""

    def __post_init__(self) -> None:
        conditions = {
            "panels": (len(self.panels) > 0, "one name at least"),
            "estimators": (len(self.estimators) > 0, "one name at least"),
        }
        require_options(self, conditions)


def run(arguments: Sequence[str]) -> None:
    """Reads the runs' events and draws the picture.

    Raises:
        RequestError: there is no such run, two runs are the same one, none has one of the
            quantities, there are more or fewer labels than lines, matplotlib is not installed, or
            the file cannot be written.
    """
    options = parse(PlotArguments, arguments, command="plot")
    from pgtoolkit.errors import RequestError

    if not options.runs:
        raise RequestError("name the runs: pgtoolkit plot RUN... --output FILE")
    require_picture(options.output, "--output")
    from pgtoolkit.scripts.comparison.figure import draw, save, unmeasured
    from pgtoolkit.scripts.comparison.groups import read_groups, relabelled

    groups = read_groups(options.runs)
    if options.labels:
        groups = relabelled(groups, options.labels)
    save(draw(groups, options.panels, options.estimators), options.output)
    print(options.output)
    if left_out := unmeasured(groups, options.panels, options.estimators):
        print(f"left out, because no run has measured it: {', '.join(left_out)}")


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
