"""Plot of ``pgtoolkit variance``: variance and SNR of each estimator against the horizon."""

import math
from collections.abc import Sequence
from typing import Any

from pgtoolkit.diagnostics.bias import BIAS_Z
from pgtoolkit.estimators.catalogue import CATALOGUE, STUDY_ESTIMATORS
from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.scripts.cli.formatting import format_number, join_names
from pgtoolkit.scripts.variance_study.decision import by_horizon, defect, is_seen, is_zero
from pgtoolkit.scripts.variance_study.verdict import crossover, variance_ratios

STYLES: dict[str, dict[str, Any]] = {
    name: {"color": CATALOGUE[name].colour, "marker": CATALOGUE[name].marker, "markersize": 7}
    for name in STUDY_ESTIMATORS
}
# Mixed is drawn on top, small and dashed, so that the lines below it stay visible.
STYLES["mixed"] |= {"markersize": 5, "linestyle": (0, (3, 2))}

GREY = "0.4"

CROSS = {"marker": "x", "markersize": 8, "markeredgewidth": 2, "linestyle": ""}

MARKER_OFFSET = 9
"""Points between the estimators' markers on the lower edge, so that they do not overlap."""

UNSEEN_LABEL = "no signal seen (95 % interval includes 0)"

BIASED_LABEL = f"biased (z > {BIAS_Z:.0f}, interval above 0): not comparable"


def draw(rows: Sequence[Measurement], title: str) -> Any:
    """A matplotlib figure of two panels over the horizon, all axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for name, style in STYLES.items():
        measurements = list(by_horizon(rows, name).values())
        _draw_variance(top, measurements, style | {"label": CATALOGUE[name].label})
        _draw_snr(bottom, measurements, style)
    _name_axes(top, bottom, sorted({row.horizon for row in rows}))
    _mark_unseen_signals(bottom, rows)
    _mark_crossover((top, bottom), variance_ratios(rows))
    figure.suptitle(title, x=0.02, horizontalalignment="left")
    _add_variance_legend(top, rows)
    return figure


def _draw_variance(axes: Any, rows: Sequence[Measurement], style: dict[str, Any]) -> None:
    """One estimator's variance with its 95 % interval, where it has one."""
    found = [row for row in rows if row.variance > 0]
    if not found:
        return
    horizons, variance = [r.horizon for r in found], [r.variance for r in found]
    ends = [r.variance_low for r in found], [r.variance_high for r in found]
    _draw_interval(axes, horizons, *ends, style["color"])
    axes.plot(horizons, variance, zorder=3, **style)
    _cross_out_biased(axes, found, variance, style["color"])


def _draw_snr(axes: Any, rows: Sequence[Measurement], style: dict[str, Any]) -> None:
    """One estimator's SNR with its interval; the line is broken where no signal is seen."""
    horizons = [row.horizon for row in rows]
    variances = [row.variance if has_snr(row) else math.nan for row in rows]
    low, mean, high = (
        [getattr(row, end) / variance for row, variance in zip(rows, variances, strict=True)]
        for end in ("signal_low", "signal", "signal_high")
    )
    _draw_interval(axes, horizons, low, high, style["color"])
    axes.plot(horizons, mean, zorder=3, **style)
    _cross_out_biased(axes, rows, mean, style["color"])


def _draw_interval(
    axes: Any, horizons: list[int], low: Sequence[float], high: Sequence[float], colour: str
) -> None:
    """A band, and a bar at each horizon, because a single horizon has no band."""
    axes.fill_between(horizons, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.vlines(horizons, low, high, color=colour, alpha=0.6, linewidth=1)


def _cross_out_biased(
    axes: Any, rows: Sequence[Measurement], values: Sequence[float], colour: str
) -> None:
    """Open markers with a cross where the gradient is biased."""
    biased = [i for i, row in enumerate(rows) if defect(row) == "biased"]
    at = [rows[i].horizon for i in biased], [values[i] for i in biased]
    hollow = {"marker": "o", "markersize": 14, "markerfacecolor": "w", "linestyle": ""}
    axes.plot(*at, color=colour, zorder=4, **hollow)
    axes.plot(*at, color=colour, zorder=5, **CROSS)


def has_snr(row: Measurement) -> bool:
    """Whether there is a signal and a variance to divide it by; otherwise the SNR is only noise."""
    return row.variance > 0 and is_seen(row)


def _mark_unseen_signals(axes: Any, rows: Sequence[Measurement]) -> None:
    """Open markers on the lower edge, side by side, at the horizons where no signal is seen."""
    from matplotlib.transforms import offset_copy

    axes.set_ylim(bottom=min((row.snr for row in rows if has_snr(row)), default=1e-3) / 10)
    edge, open_marker = axes.get_xaxis_transform(), {"markerfacecolor": "w", "linestyle": ""}
    unseen = [row for row in rows if row.variance > 0 and not has_snr(row)]
    for order, (name, style) in enumerate(STYLES.items()):
        at = [row.horizon for row in unseen if row.estimator == name]
        if at:
            x = MARKER_OFFSET * (order - len(STYLES) // 2)
            shifted = offset_copy(edge, axes.figure, x=x, units="points")
            style = style | open_marker | {"transform": shifted, "clip_on": False, "zorder": 6}
            axes.plot(at, [0] * len(at), **style)
    if unseen:
        axes.plot([], [], color=GREY, marker="o", label=UNSEEN_LABEL, **open_marker)
        axes.legend(frameon=False, loc="best")


def _mark_crossover(panels: tuple[Any, Any], ratios: dict[int, float]) -> None:
    """A vertical line where pathwise's variance rises above the score function's."""
    horizon = crossover(list(ratios), list(ratios.values()))
    if horizon is None:
        return
    for axes in panels:
        axes.axvline(horizon, color=GREY, linestyle="--", linewidth=1, zorder=1)
    top = panels[0]
    beyond_middle = horizon > math.sqrt(min(ratios) * max(ratios))
    top.annotate(
        f"pathwise passes the\nscore function\nat H ≈ {format_number(horizon, 2)}",
        (horizon, 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(-6 if beyond_middle else 6, 0),
        textcoords="offset points",
        horizontalalignment="right" if beyond_middle else "left",
        color=GREY,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def _name_axes(top: Any, bottom: Any, horizons: list[int]) -> None:
    """Labels, logarithmic scales and grids of both panels; a tick at each horizon."""
    top.set_ylabel("variance of one trajectory's gradient")
    bottom.set_ylabel("SNR: signal / variance")
    bottom.set_xlabel("horizon H, in steps")
    for axes in (top, bottom):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    bottom.set_xticks(horizons, [str(h) for h in horizons])
    bottom.minorticks_off()


def _add_variance_legend(axes: Any, rows: Sequence[Measurement]) -> None:
    """The legend, with entries for biased and for zero gradients where there are any."""
    biased = [row for row in rows if defect(row) == "biased"]
    if biased:
        axes.plot([], [], color=GREY, label=BIASED_LABEL, **CROSS)
    zero = [row.horizon for row in rows if row.estimator == "pathwise" and is_zero(row)]
    if zero:
        axes.plot([], [], linestyle="", label=f"pathwise is 0 at H = {join_names(zero)}")
    axes.fill_between([], [], color=GREY, alpha=0.18, linewidth=0, label="95 % interval")
    axes.legend(frameon=False, loc="best")
