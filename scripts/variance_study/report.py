"""Terminal output of ``pgtoolkit variance``: progress while it measures, then a table."""

import math
from collections.abc import Sequence
from typing import final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pgtoolkit.diagnostics.bias import BIAS_SHARE, BIAS_Z
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.scripts.cli.display.progress import BarView
from pgtoolkit.scripts.cli.formatting import format_number
from pgtoolkit.scripts.variance_study.decision import defect

LEGEND = (
    "Variance: of one trajectory's gradient of its return, not divided by H. SNR: squared norm of "
    "the mean gradient over variance; unseen where the interval of the squared norm includes 0. "
    "Bias z: significance of the mean difference from the score function (of the critic from "
    "pathwise, where that is not biased), as a normal z; "
    f"biased above {BIAS_Z:.0f} where the interval of the squared bias is above 0 as well. A bias "
    f"matters if its square is {BIAS_SHARE:.0%} of the squared norm of the pathwise gradient."
)

NO_INTERVAL = "too few trajectories"
"""Shown in place of an interval where too few trajectories make up the variance."""


@final
class MeasurementView(BarView):
    """Progress of the measurement: a bar on a terminal, one line for each horizon elsewhere.

    Args:
        horizons: those to be measured, in steps; the bar advances by the horizon.
    """

    def __init__(self, horizons: Sequence[int]) -> None:
        super().__init__("measuring", sum(horizons))

    def begin(self, horizon: int) -> None:
        """Shows the horizon whose measurement begins."""
        self.bar.update(self.task, description=f"measuring H = {horizon}")

    def end(self, rows: Sequence[Measurement]) -> None:
        """Shows the measurements of one horizon."""
        self.bar.advance(self.task, rows[0].horizon)
        if not self.console.is_terminal:
            variances = ", ".join(
                f"{CATALOGUE[row.estimator].label} {format_number(row.variance)}" for row in rows
            )
            horizon, seconds = rows[0].horizon, rows[0].seconds
            print(f"H = {horizon}: variance {variances} ({seconds:.1f} s)", flush=True)


def table(rows: Sequence[Measurement]) -> Table:
    """A table with one line for each measurement; fits 80 columns."""
    found = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    found.add_column("H", justify="right", no_wrap=True)
    found.add_column("estimator", no_wrap=True)
    for title in ("variance", "95 % interval", "SNR", "bias z"):
        found.add_column(title, justify="right", no_wrap=True)
    found.add_column("", style="bold red", no_wrap=True)
    previous = None
    for row in rows:
        found.add_row("" if row.horizon == previous else str(row.horizon), *_cells(row))
        previous = row.horizon
    return found


def _cells(row: Measurement) -> tuple[str, ...]:
    """Estimator, variance, its interval, SNR, bias z and defect."""
    interval = "-" if math.isnan(row.variance) else NO_INTERVAL
    if math.isfinite(row.variance_low):
        interval = f"{format_number(row.variance_low)}..{format_number(row.variance_high)}"
    snr = "-" if math.isnan(row.variance) else "unseen"
    # If the interval of the signal includes 0, the ratio is noise and would look like a number.
    if row.signal_low > 0:
        snr = format_number(row.snr, 2)
    variance, z = format_number(row.variance), format_number(row.bias_z, 2)
    return CATALOGUE[row.estimator].label, variance, interval, snr, z, defect(row) or ""


def footnotes(rows: Sequence[Measurement]) -> str:
    """Meaning of the columns, and a note if episodes were shorter than the longest horizon."""
    last = max(rows, key=lambda row: row.horizon)
    if last.mean_length > 0.99 * last.horizon:
        return LEGEND
    return (
        f"{LEGEND} Episodes end before the horizon: at H = {last.horizon} trajectories "
        f"are {format_number(last.mean_length)} steps long on average."
    )
