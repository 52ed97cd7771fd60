"""Pictures of runs: a column for each environment, a panel for each quantity.

Where there are several groups, colour and marker are the group's in every panel, and the dashes of
a line are its estimator's. In a picture of one group the colour is the estimator's, as in every
other picture of this package, and returns are black. So no colour has two meanings.

The type has its size where the picture fills half a column of print for each environment.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from pgtoolkit.diagnostics.bias import BIAS_Z
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.scripts.comparison.curves import Band, Curve, band
from pgtoolkit.scripts.comparison.groups import Group
from pgtoolkit.scripts.comparison.scalars import (
    EVALUATION,
    Scalars,
    curve_of,
    over_cpu_seconds,
)
from pgtoolkit.training.history import followed_of

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's, which people with any colour vision can tell apart."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

ESTIMATOR_DASHES: dict[str, Any] = {
    "score_function": (0, (1.2, 1.2)),
    "pathwise": "-",
    "mixed": (0, (5, 1.5)),
    "critic": (0, (5, 1.5, 1.2, 1.5)),
}
"""The dashes of an estimator's lines, in pictures of several groups."""

ALONE = {"color": "black", "marker": "o", "linestyle": "-"}
"""The style of the returns of a group that is alone."""

TRAINING, ELBO = "rollout/ep_rew_mean", "variational/elbo"

NOTES = {
    EVALUATION: ": evaluations, deterministic",
    TRAINING: ": last 100 training episodes",
    ELBO: ": evidence lower bound",
}

MARKED_POINTS = 10
"""Markers on a line, at most."""

COLUMN_WIDTH, PANEL_HEIGHT = 3.3, 1.75
"""Inches; half of a column of print is 3.3 wide."""

LEGEND_ROW_HEIGHT = 0.16
"""Inches that a row of the legend adds to the picture."""

LETTER_WIDTH, LEGEND_LINE_WIDTH = 0.054, 0.42
"""Inches of a legend: a letter of a label, and the line beside it with the space around."""

TYPE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "axes.linewidth": 0.7,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}
"""Sizes in points, and text that stays text in .pdf and .svg."""

PIXELS_PER_INCH = 300

MAX_TICKS = 4

STROKE: dict[str, Any] = {"markersize": 3.2, "linewidth": 1.2}


@final
class Series(NamedTuple):
    """A line of a panel: the curves of one or several seeds, in one style."""

    label: str
    curves: Sequence[Curve]
    style: Mapping[str, Any]
    ends: Sequence[Curve] = ()
    """Lower and upper ends of the interval that a single run has measured itself."""


@final
class Panel(NamedTuple):
    """One quantity of runs."""

    name: str
    x_label: str
    y_label: str
    series: Callable[[Group, Mapping[str, Any], str], list[Series]]
    """The lines of a group, from its style and from the beginning of their labels."""
    scale: str = "linear"
    line_at: float | None = None
    """A value that is marked by a horizontal line."""


def return_series(group: Group, style: Mapping[str, Any], prefix: str) -> list[Series]:
    """The evaluations, else the training episodes; a group that is alone has both."""
    tag = EVALUATION if _curves(group, EVALUATION) else ELBO
    evaluations = _series(prefix or f"{group.label}{NOTES[tag]}", _curves(group, tag), style)
    if evaluations and prefix:
        return evaluations
    thin = {**style, "linewidth": 0.8, "marker": "", "linestyle": "-", "color": "0.6"}
    training = _series(
        f"{group.label}{NOTES[TRAINING]}", _curves(group, TRAINING), thin if evaluations else style
    )
    return training + evaluations


def cpu_series(group: Group, style: Mapping[str, Any], prefix: str) -> list[Series]:
    """The evaluations over the CPU seconds of training, if all runs have counted them."""
    found = [over_cpu_seconds(run, EVALUATION) for run in group.runs]
    curves = [curve for curve in found if curve is not None]
    complete = curves if len(curves) == len(group.runs) else []
    return _series(prefix or group.label, complete, style)


def estimator_series(
    what: str, estimators: Sequence[str]
) -> Callable[[Group, Mapping[str, Any], str], list[Series]]:
    """The lines of ``gradient/{estimator}/{what}`` and of ``gradient/{what}``.

    The second is about pathwise, which is compared with the score function.

    Args:
        what: the end of the tags.
        estimators: names of those that are drawn.
    """

    def series(group: Group, style: Mapping[str, Any], prefix: str) -> list[Series]:
        found = []
        for name, estimator in CATALOGUE.items():
            if name not in estimators:
                continue
            tags = (
                f"gradient/{name}/{what}",
                *([f"gradient/{what}"] if name == "pathwise" else []),
            )
            tag = next((tag for tag in tags if _curves(group, tag)), tags[0])
            mine = {**style, "linestyle": ESTIMATOR_DASHES[name]}
            if not prefix:
                # Mixed is drawn last and dashed, so that the lines below it stay visible.
                dashes = (0, (3, 2)) if name == "mixed" else "-"
                mine = {"color": estimator.colour, "marker": estimator.marker, "linestyle": dashes}
            found += _series(estimator.label, _curves(group, tag), mine, _ends(group, tag))
        return found

    return series


def variance_series(
    sample: str, estimators: Sequence[str]
) -> Callable[[Group, Mapping[str, Any], str], list[Series]]:
    """The variances of the groups whose gradients are measured on samples of this kind.

    Args:
        sample: ``trajectory`` or ``state``.
        estimators: names of those that are drawn.
    """
    variances = estimator_series("variance", estimators)

    def series(group: Group, style: Mapping[str, Any], prefix: str) -> list[Series]:
        return variances(group, style, prefix) if sample_of(group.runs[0]) == sample else []

    return series


def sample_of(run: Scalars) -> str:
    """What the variance of a run's gradient is of: one ``trajectory``, or one ``state``.

    Agents that follow a critic's gradient measure it on states, and the score function beside it.
    """
    on_states = "gradient/critic/variance" in run and followed_of(run) != "pathwise"
    return "state" if on_states else "trajectory"


def panels_of(estimators: Sequence[str]) -> list[Panel]:
    """All panels in their order, with the lines of these estimators."""
    return [
        Panel(
            "return", "environment steps", "return of an episode\n(units of reward)", return_series
        ),
        Panel(
            "cpu", "CPU time of training (s)", "return of an episode\n(units of reward)", cpu_series
        ),
        *(
            Panel(
                "variance",
                "environment steps",
                f"variance per {sample}\n((return/parameter)²)",
                variance_series(sample, estimators),
                scale="log",
            )
            for sample in ("trajectory", "state")
        ),
        Panel(
            "cosine",
            "environment steps",
            "cosine of the\nmean gradients",
            estimator_series("cosine", estimators),
            line_at=0.0,
        ),
        Panel(
            "bias",
            "environment steps",
            f"z of the bias\n(biased above {BIAS_Z:.0f})",
            estimator_series("bias_z", estimators),
            line_at=BIAS_Z,
        ),
    ]


def draw(
    groups: Sequence[Group], names: Sequence[str], estimators: Sequence[str] = tuple(CATALOGUE)
) -> Any:
    """A matplotlib figure: a column for each environment, a row for each panel with data.

    Args:
        groups: the runs.
        names: of the panels.
        estimators: names of the gradient estimators that are drawn.

    Raises:
        RequestError: no run has one of these quantities.
    """
    import matplotlib

    envs = list(dict.fromkeys(group.env for group in groups))
    panels = _measured(groups, names, estimators)
    if not panels:
        raise RequestError(
            f"no run has measured {' or '.join(names)}: gradients are measured every "
            "--diagnostics-interval updates, cosine and bias where there are two of them (the "
            "environment has a gradient), and returns every --eval-interval steps"
        )
    with matplotlib.rc_context(TYPE):
        return _drawn(groups, envs, panels)


def unmeasured(
    groups: Sequence[Group], names: Sequence[str], estimators: Sequence[str] = tuple(CATALOGUE)
) -> list[str]:
    """The names of the panels that :func:`draw` leaves out, because no run has such data."""
    found = {panel.name for panel in _measured(groups, names, estimators)}
    return [name for name in names if name not in found]


def _measured(
    groups: Sequence[Group], names: Sequence[str], estimators: Sequence[str]
) -> list[Panel]:
    wanted = [panel for panel in panels_of(estimators) if panel.name in names]
    return [panel for panel in wanted if any(panel.series(group, {}, "") for group in groups)]


def _drawn(groups: Sequence[Group], envs: Sequence[str], panels: Sequence[Panel]) -> Any:
    from matplotlib.figure import Figure

    size = COLUMN_WIDTH * len(envs), PANEL_HEIGHT * len(panels)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), len(envs), squeeze=False)
    styles = _styles(groups)
    for column, env in enumerate(envs):
        here = [group for group in groups if group.env == env]
        axes[0, column].set_title(env, loc="left")
        for row, panel in enumerate(panels):
            _draw_panel(axes[row, column], panel, here, styles)
        _share_x(list(axes[:, column]), panels)
    _add_legend(figure, groups, styles)
    return figure


def _add_legend(
    figure: Any, groups: Sequence[Group], styles: Mapping[str, Mapping[str, Any]]
) -> None:
    """One legend above all panels, beside which it would hide lines.

    Several groups have a line each, and the estimators that were drawn one without a colour.
    """
    from matplotlib.lines import Line2D

    lines = [line for axes in figure.axes for line in axes.get_lines()]
    found = {str(line.get_label()): line for line in lines if line.get_label()[0] != "_"}
    if len(styles) > 1:
        seeds = {group.label: _seeds(len(group.runs)) for group in groups}
        found = {
            label + seeds[label]: Line2D([], [], **STROKE, **style)
            for label, style in styles.items()
        } | {
            estimator.label: Line2D([], [], color="0.3", linestyle=dashes, linewidth=1.2)
            for estimator, dashes in zip(CATALOGUE.values(), ESTIMATOR_DASHES.values(), strict=True)
            if estimator.label in found
        }
    else:
        found = {label + _seeds(len(groups[0].runs)): line for label, line in found.items()}
    title = None
    if any(len(group.runs) > 1 for group in groups):
        title = "interquartile mean; band: 95 % interval;\nthin: least and greatest seed"
    columns = _columns(list(map(len, found)), figure.get_size_inches()[0])
    rows = math.ceil(len(found) / columns) + 2 * (title is not None)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW_HEIGHT * rows)
    figure.legend(
        list(found.values()),
        list(found),
        loc="outside upper left",
        ncols=columns,
        title=title,
        alignment="left",
        frameon=False,
        columnspacing=1.0,
        handlelength=2.6,
        borderaxespad=0.2,
    )


def _columns(lengths: Sequence[int], width: float) -> int:
    """The most columns, at most four, in which a legend is no wider than the picture.

    Args:
        lengths: characters of each label.
        width: of the picture, in inches.
    """
    for columns in (4, 3, 2):
        # as matplotlib fills its columns: five labels in four are 2, 1, 1 and 1
        parts = np.array_split(lengths, min(columns, len(lengths)))
        longest = [int(part.max()) for part in parts]
        if sum(LETTER_WIDTH * length + LEGEND_LINE_WIDTH for length in longest) <= width:
            return columns
    return 1


def _seeds(count: int) -> str:
    """The end of a label, that says of how many seeds a line is."""
    return f" ({count} seeds)" if count > 1 else ""


def save(figure: Any, path: Path) -> None:
    """Writes the figure.

    Raises:
        RequestError: the file cannot be written.
    """
    import matplotlib

    try:
        with matplotlib.rc_context(TYPE):  # the kind of a file's fonts is chosen when it is written
            figure.savefig(path, dpi=PIXELS_PER_INCH)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be written: {error}") from error


def _share_x(axes: Sequence[Any], panels: Sequence[Panel]) -> None:
    """Gives panels over the same quantity the same range."""
    first: dict[str, Any] = {}
    for each, panel in zip(axes, panels, strict=True):
        if first.setdefault(panel.x_label, each) is not each:
            each.sharex(first[panel.x_label])
            each.autoscale(axis="x")


def _styles(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """A style for each label, the same in all columns and panels."""
    labels = list(dict.fromkeys(group.label for group in groups))
    if len(labels) == 1:
        return {labels[0]: ALONE}
    return {
        label: {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": "-",
        }
        for index, label in enumerate(labels)
    }


def _draw_panel(
    axes: Any, panel: Panel, groups: Sequence[Group], styles: Mapping[str, Mapping[str, Any]]
) -> None:
    """The lines of all groups, and the axes' labels."""
    for group in groups:
        prefix = group.label if len(styles) > 1 else ""
        for series in panel.series(group, styles[group.label], prefix):
            _draw_series(axes, series, panel.scale)
    if axes.has_data():
        _finish_axes(axes, panel)
    else:
        axes.axis("off")  # no run on this environment has measured it


def _draw_series(axes: Any, series: Series, scale: str) -> None:
    """The interquartile mean, its interval as a band, and the least and greatest seed as lines.

    A single run has bars at the points for which it measured an interval itself.
    """
    found = _log_band(series.curves) if scale == "log" else band(series.curves)
    colour = series.style["color"]
    if len(series.curves) > 1:
        axes.fill_between(found.x, found.low, found.high, color=colour, alpha=0.2, linewidth=0)
        for edge in (found.least, found.greatest):
            axes.plot(found.x, edge, color=colour, linewidth=0.7, alpha=0.6)
    elif len(series.ends) == 2:
        low, high = series.ends
        both = np.intersect1d(low.x, high.x)
        ends = [curve.y[np.isin(curve.x, both)] for curve in (low, high)]
        axes.vlines(both, *ends, color=colour, alpha=0.3, linewidth=2)
    every = max(1, math.ceil(len(found.x) / MARKED_POINTS))
    style = {**STROKE, "markevery": every, **series.style}
    axes.plot(found.x, found.iqm, label=series.label, **style)


def _log_band(curves: Sequence[Curve]) -> Band:
    """The statistics of the logarithms: a mean of variances would be that of the largest."""
    positive = [Curve(c.x[c.y > 0], np.log(c.y[c.y > 0])) for c in curves if (c.y > 0).any()]
    found = band(positive)
    return Band(
        found.x, *(np.exp(getattr(found, n)) for n in ("iqm", "low", "high", "least", "greatest"))
    )


def _finish_axes(axes: Any, panel: Panel) -> None:
    """Labels with units, scale and grid."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.set_yscale(panel.scale)
    for axis in (axes.xaxis, *([axes.yaxis] if panel.scale == "linear" else [])):
        axis.set_major_locator(MaxNLocator(MAX_TICKS))
        axis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    if panel.scale == "log":
        axes.yaxis.set_major_locator(LogLocator(numticks=MAX_TICKS + 1))
        axes.yaxis.set_minor_locator(NullLocator())
    if panel.line_at is not None:
        axes.axhline(panel.line_at, color="0.5", linewidth=1, linestyle=":")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)


def _curves(group: Group, tag: str) -> list[Curve]:
    """The curves of a tag, if every run of the group has it."""
    found = [curve_of(run, tag) for run in group.runs]
    curves = [curve for curve in found if curve is not None]
    return curves if len(curves) == len(found) else []


def _ends(group: Group, tag: str) -> list[Curve]:
    """The ends of the interval of a single run's tag, if it has them."""
    if len(group.runs) > 1:
        return []
    ends = [_end(group.runs[0], tag, end) for end in ("_low", "_high")]
    return [end for end in ends if end is not None]


def _end(run: Scalars, tag: str, end: str) -> Curve | None:
    return curve_of(run, tag + end)


def _series(
    label: str, curves: Sequence[Curve], style: Mapping[str, Any], ends: Sequence[Curve] = ()
) -> list[Series]:
    """The series, or nothing where there are no curves."""
    return [Series(label, curves, style, ends)] if curves else []
