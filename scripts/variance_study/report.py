"""What ``pgtoolkit variance`` shows on a terminal: progress while it measures, then a table."""

import math
from collections.abc import Sequence
from typing import final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.scripts.cli.files import short
from pgtoolkit.scripts.cli.progress import BarView
from pgtoolkit.scripts.variance_study.verdict import defect

NAMES = {"score_function": "score function", "pathwise": "pathwise", "mixed": "mixed"}


@final
class MeasuringView(BarView):
    """A bar on a terminal, a line a horizon elsewhere. Use as a context manager."""

    def __init__(self, horizons: Sequence[int]) -> None:
        super().__init__("measuring", sum(horizons))

    def begin(self, horizon: int) -> None:
        """Says which horizon is being measured."""
        self._bar.update(self._task, description=f"measuring H = {horizon}")

    def end(self, rows: Sequence[Measurement]) -> None:
        """Says what was found at a horizon."""
        self._bar.advance(self._task, rows[0].horizon)
        if not self.console.is_terminal:
            found = ", ".join(f"{NAMES[row.estimator]} {short(row.variance)}" for row in rows)
            print(f"H = {rows[0].horizon}: variance {found} ({rows[0].seconds:.1f} s)", flush=True)


def table(rows: Sequence[Measurement]) -> Table:
    """The measurements, a line each; fits 80 columns."""
    found = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    found.add_column("H", justify="right", no_wrap=True)
    found.add_column("estimator", no_wrap=True)
    for title in ("variance", "95 % interval", "SNR", "bias z"):
        found.add_column(title, justify="right", no_wrap=True)
    found.add_column("", style="bold red", no_wrap=True)
    before = None
    for row in rows:
        found.add_row("" if row.horizon == before else str(row.horizon), *_cells(row))
        before = row.horizon
    return found


def _cells(row: Measurement) -> tuple[str, ...]:
    interval = f"{short(row.variance_low)}..{short(row.variance_high)}"
    snr = "-" if math.isnan(row.variance) else "unseen"
    # Where the interval of the signal holds 0, a ratio is noise that looks like a number.
    if row.signal_low > 0:
        snr = short(row.snr, 2)
    z = short(row.bias_z, 2)
    return NAMES[row.estimator], short(row.variance), interval, snr, z, defect(row) or ""


def footnotes(rows: Sequence[Measurement]) -> str:
    """What the columns mean, and where episodes were shorter than the horizon."""
    last = max(rows, key=lambda row: row.horizon)
    if last.mean_length > 0.99 * last.horizon:
        return LEGEND
    return (
        f"{LEGEND} Episodes end before the horizon: at H = {last.horizon} trajectories "
        f"are {short(last.mean_length)} steps long on average."
    )


LEGEND = (
    "Variance: of one trajectory's gradient of its return, not divided by H. SNR: squared norm of "
    "the mean gradient over variance; unseen where the former's interval holds 0. Bias z: of the "
    "mean difference from the score function."
)
