"""``scripts/studies/plot_gain.py RUN [RUN ...] --output FILE.png``: why a gradient explodes.

One line for each run: the policy's gain, the growth of the adjoint, the variance of the pathwise
gradient over that of the score function, and the return, against environment steps.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.files import require_picture
from pgtoolkit.scripts.comparison.figure import (
    COLUMN_WIDTH,
    MAX_TICKS,
    PANEL_HEIGHT,
    STROKE,
    TYPE,
    save,
)
from pgtoolkit.scripts.comparison.scalars import Scalars, read_scalars

GAIN, RETURN = "train/policy_gain", "eval/mean_reward"

PANELS = {
    GAIN: "policy's gain",
    "gradient/adjoint_growth": "adjoint's growth\na step backwards",
    "variance": "variance of pathwise\nover score function",
    RETURN: "return\n(evaluation)",
}
"""Tag of a run, or ``variance``, to the label of its panel."""

LOGARITHMIC = (GAIN, "variance")
"""Panels with a logarithmic scale."""

COLOURS = ("#c2410c", "#1f69b4", "#009e73", "#8a4fb0", "#737373")
"""Colours of the runs, in their order; used again from the start."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class PlotGainArguments:
    """Plots gain, growth of the adjoint, variance ratio and return of runs, one line each."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folders of the runs."""
    labels: tuple[str, ...] = ()
    """Names of the runs in the legend; default: their folders' names."""
    output: Path
    """File for the plot: .png, .svg or .pdf."""


def run(arguments: Sequence[str]) -> None:
    """Reads the runs' events and writes the plot.

    Raises:
        RequestError: there is no such run, it measured no gain, the numbers of runs and labels
            differ, matplotlib is not installed, or the file cannot be written.
    """
    options = parse(PlotGainArguments, arguments, command="studies/plot_gain")
    if not options.runs:
        raise RequestError("name the folders of one run or more")
    if options.labels and len(options.labels) != len(options.runs):
        raise RequestError(
            f"--labels must name each of the {len(options.runs)} runs, not {len(options.labels)}"
        )
    from pgtoolkit.training.run_folder import RunFolder

    folders = [RunFolder.open(name)[0] for name in options.runs]
    require_picture(options.output, "--output")
    labels = options.labels or tuple(folder.path.name for folder in folders)
    scalars = {
        label: read_scalars(folder.path) for label, folder in zip(labels, folders, strict=True)
    }
    for folder, found in zip(folders, scalars.values(), strict=True):
        if GAIN not in found:
            raise RequestError(f"{folder.path} measured no gain (--diagnostics-interval 0?)")
    save(draw(scalars), options.output)
    print(options.output)


def draw(runs: Mapping[str, Scalars]) -> Any:
    """A matplotlib figure with a panel for each of ``PANELS`` and a line for each run.

    It is half a column of print wide, and its type has its size there.
    """
    import matplotlib

    with matplotlib.rc_context(TYPE):
        return _drawn(runs)


def _drawn(runs: Mapping[str, Scalars]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    size = COLUMN_WIDTH, PANEL_HEIGHT * len(PANELS)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(PANELS), 1, sharex=True)
    for axes, (tag, label) in zip(panels, PANELS.items(), strict=True):
        for number, (name, scalars) in enumerate(runs.items()):
            series = variance_ratio(scalars) if tag == "variance" else scalars.get(tag)
            if series is not None:
                colour = COLOURS[number % len(COLOURS)]
                axes.plot(*series, color=colour, label=name, marker=".", **STROKE)
        if tag in LOGARITHMIC:
            axes.set_yscale("log")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
    for axes, level in ((panels[1], 1.0), (panels[2], 1.0)):
        axes.axhline(level, color="0.5", linewidth=0.8, linestyle=":")
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper left", frameon=False)
    later = [x for found in runs.values() for x in found.get(RETURN, ([], []))[1][1:]]
    if later:
        # The first evaluation is of an untrained policy, and would flatten the rest.
        margin = 0.1 * (max(later) - min(later)) or 1.0
        panels[-1].set_ylim(min(later) - margin, max(later) + margin)
    panels[-1].set_xlabel("environment steps")
    panels[-1].xaxis.set_major_locator(MaxNLocator(MAX_TICKS))
    panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure


def variance_ratio(scalars: Scalars) -> tuple[list[int], list[float]] | None:
    """Steps, and the variance of pathwise over the score function's; None without both."""
    pair = [scalars.get(f"gradient/{name}/variance") for name in ("pathwise", "score_function")]
    if pair[0] is None or pair[1] is None:
        return None
    below = dict(zip(*pair[1], strict=True))
    points = [(t, v / below[t]) for t, v in zip(*pair[0], strict=True) if below.get(t, 0.0) > 0]
    return [t for t, _ in points], [ratio for _, ratio in points]


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
