"""``python scripts/plot_run.py RUN --output FILE.png``: return, and both gradients' variance."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.files import require_picture

ESTIMATORS = {
    "score_function": ("score function", "#d6601e"),
    "pathwise": ("pathwise", "#1f69b4"),
    "mixed": ("mixed", "#009e73"),
}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class PlotArguments:
    """Plots a run from its TensorBoard events: return above, gradient variance below."""

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    output: Path
    """A picture: .png, .svg or .pdf."""


def run(arguments: Sequence[str]) -> None:
    """Parses, reads, plots.

    Raises:
        RequestError: no such run, nothing measured in it, or matplotlib is missing.
    """
    options = parse(PlotArguments, arguments, command="plot_run")
    from pgtoolkit.training.run_folder import RunFolder

    folder, config = RunFolder.open(Path(options.run))
    require_picture(options.output, "--output")
    import matplotlib

    matplotlib.use("Agg")
    scalars = read_scalars(folder.path)
    if not any(f"gradient/{name}/variance" in scalars for name in ESTIMATORS):
        raise RequestError(f"{folder.path} measured no gradient (--diagnostics-interval 0?)")
    variational = f"{config.get('estimator')}, {config.get('family')} covariance"
    title = f"{config.get('agent')} on {config.get('env')}" if "agent" in config else variational
    figure = draw(scalars, title.replace("_", " ") if title == variational else title)
    try:
        figure.savefig(options.output, dpi=150)
    except (OSError, ValueError) as error:
        raise RequestError(f"{options.output} cannot be written: {error}") from error
    print(options.output)


def read_scalars(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Every scalar of a run: ``{tag: (steps, values)}``."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        series = events.Scalars(tag)
        found[tag] = ([event.step for event in series], [event.value for event in series])
    return found


def draw(scalars: dict[str, tuple[list[int], list[float]]], title: str) -> Any:
    """A figure of two panels over environment steps."""
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(
        2, 1, sharex=True, figsize=(8, 6), layout="constrained", height_ratios=(2, 3)
    )
    for tag, label in (
        ("rollout/ep_rew_mean", "training (last 100 episodes)"),
        ("eval/mean_reward", "evaluation (deterministic)"),
        ("variational/elbo", "evidence lower bound"),
    ):
        if tag in scalars:
            marker = "o" if tag.startswith("eval") else ""
            top.plot(*scalars[tag], label=label, marker=marker, markersize=4)
    bound = "variational/elbo" in scalars
    top.set_ylabel("evidence lower bound" if bound else "return of an episode")
    top.set_title(title, loc="left")
    top.legend(frameon=False)
    for name, (label, colour) in ESTIMATORS.items():
        series = [scalars.get(f"gradient/{name}/variance{end}") for end in ("", "_low", "_high")]
        mean, low, high = series
        if mean is not None and low is not None and high is not None:
            bottom.fill_between(mean[0], low[1], high[1], color=colour, alpha=0.2, linewidth=0)
            # Mixed, on top, does not hide its parts.
            dashes = "--" if name == "mixed" else "-"
            bottom.plot(*mean, dashes, color=colour, label=f"{label}, with 95 % interval")
    bottom.set_yscale("log")
    bottom.set_ylabel("variance of one trajectory's gradient")
    bottom.set_xlabel("optimiser steps" if bound else "environment steps")
    bottom.legend(frameon=False, loc="best")
    bottom.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    return figure


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
