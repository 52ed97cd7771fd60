"""``python scripts/plot_run.py RUN --output FILE.png``: plots return and gradient variance."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.files import require_picture

Scalars = dict[str, tuple[list[int], list[float]]]
"""TensorBoard tag to steps and values."""

RETURN_LABELS = {
    "rollout/ep_rew_mean": "training (last 100 episodes)",
    "eval/mean_reward": "evaluation (deterministic)",
    "variational/elbo": "evidence lower bound",
}
"""Tag to its label in the upper panel."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class PlotArguments:
    """Plots a run from its TensorBoard events: return above, gradient variance below."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    output: Path
    """File for the plot: .png, .svg or .pdf."""


def run(arguments: Sequence[str]) -> None:
    """Reads the run's events and writes the plot.

    Raises:
        RequestError: there is no such run, it measured no gradient, matplotlib is not installed, or
            the file cannot be written.
    """
    options = parse(PlotArguments, arguments, command="plot_run")
    from pgtoolkit.training.run_folder import RunFolder

    folder, config = RunFolder.open(options.run)
    require_picture(options.output, "--output")
    import matplotlib

    matplotlib.use("Agg")
    scalars = read_scalars(folder.path)
    if not any(f"gradient/{name}/variance" in scalars for name in CATALOGUE):
        raise RequestError(f"{folder.path} measured no gradient (--diagnostics-interval 0?)")
    figure = draw(scalars, title_of(config))
    try:
        figure.savefig(options.output, dpi=150)
    except (OSError, ValueError) as error:
        raise RequestError(f"{options.output} cannot be written: {error}") from error
    print(options.output)


def title_of(config: Mapping[str, Any]) -> str:
    """The plot's title, from the configuration of a training run or of variational inference."""
    if "agent" in config:
        return f"{config.get('agent')} on {config.get('env')}"
    return f"{config.get('estimator')}, {config.get('family')} covariance".replace("_", " ")


def read_scalars(path: Path) -> Scalars:
    """All scalars in the TensorBoard events of a run's folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        series = events.Scalars(tag)
        found[tag] = ([event.step for event in series], [event.value for event in series])
    return found


def draw(scalars: Scalars, title: str) -> Any:
    """A matplotlib figure: returns (or the ELBO) above, gradient variances below, over steps."""
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(
        2, 1, sharex=True, figsize=(8, 6), layout="constrained", height_ratios=(2, 3)
    )
    variational = "variational/elbo" in scalars
    _draw_returns(top, scalars)
    top.set_ylabel("evidence lower bound" if variational else "return of an episode")
    top.set_title(title, loc="left")
    _draw_variances(bottom, scalars)
    bottom.set_xlabel("optimiser steps" if variational else "environment steps")
    bottom.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    return figure


def _draw_returns(axes: Any, scalars: Scalars) -> None:
    """A line for each tag of ``RETURN_LABELS`` that the run has."""
    for tag, label in RETURN_LABELS.items():
        if tag in scalars:
            marker = "o" if tag.startswith("eval") else ""
            axes.plot(*scalars[tag], label=label, marker=marker, markersize=4)
    axes.legend(frameon=False)


def _draw_variances(axes: Any, scalars: Scalars) -> None:
    """Each estimator's variance on a logarithmic scale, with a bar for each 95 % interval.

    There are bars and no bands, because a measurement may have no interval.
    """
    for name, estimator in CATALOGUE.items():
        colour = estimator.colour
        tag = f"gradient/{name}/variance"
        if tag in scalars:
            mean = scalars[tag]
            ends = [_at_steps(scalars, tag + end, mean[0]) for end in ("_low", "_high")]
            axes.vlines(mean[0], *ends, color=colour, alpha=0.4, linewidth=4)
            # Mixed is drawn last and dashed, so that the lines below it stay visible.
            dashes = "--" if name == "mixed" else "-"
            axes.plot(*mean, dashes, color=colour, label=estimator.label)
    axes.set_yscale("log")
    axes.set_ylabel("variance of one trajectory's gradient")
    axes.legend(frameon=False, loc="best", title="bar: 95 % interval; none: too few trajectories")


def _at_steps(scalars: Scalars, tag: str, steps: Sequence[int]) -> list[float]:
    """The values of a tag at these steps; NaN, a gap, where there is none.

    An interval has gaps where too few trajectories make up the variance.
    """
    known, values = scalars.get(tag, ([], []))
    found = dict(zip(known, values, strict=True))
    return [found.get(step, math.nan) for step in steps]


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
