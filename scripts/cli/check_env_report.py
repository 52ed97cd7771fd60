"""What ``pgtoolkit check-env`` shows: progress while it looks, then a page."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgtoolkit.envs.checks.finding import Finding, Part

PARTS: tuple[Part, ...] = ("interface", "behaviour", "gradients", "horizon")

STYLES = {"pass": "green", "warning": "yellow", "fault": "bold red"}

WIDTH = 100


@final
class CheckingView:
    """A line that changes on a terminal, lines elsewhere, on stderr. Use as a context manager."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.seconds = 0.0
        self._began = time.monotonic()
        self._status = self.console.status("checking")

    def begin(self, what: str) -> None:
        """Says what is being looked at."""
        if self.console.is_terminal:
            self._status.update(f"checking {what}")
        else:
            print(f"checking {what}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._status.stop()
        self.seconds = time.monotonic() - self._began


def show(name: str, findings: Sequence[Finding], seconds: float) -> None:
    """Prints the page."""
    width = None if Console().is_terminal else WIDTH
    console = Console(highlight=False, markup=False, width=width)
    for part in PARTS:
        chosen = [finding for finding in findings if finding.part == part]
        if chosen:
            console.print(part.capitalize(), style="bold")
            console.print(page(chosen))
    console.print(f"{name}: {summary(findings)} ({seconds:.1f} s)", style="bold")


def page(findings: Sequence[Finding]) -> Table:
    """A line a finding; meaning and advice below those that are not passes."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=9)
    table.add_column(no_wrap=True, min_width=22)
    table.add_column(overflow="fold")
    for finding in findings:
        style = STYLES[finding.status]
        text = Text(finding.finding)
        if finding.status != "pass":
            text.append(f"\nThat means: {finding.meaning}.", style="dim")
            text.append(f"\nTo do: {finding.advice}.")
        table.add_row(Text(f"  {finding.status}", style=style), finding.check, text)
    return table


def summary(findings: Sequence[Finding]) -> str:
    """``1 fault, 2 warnings, 20 passes``."""
    counts = Counter(finding.status for finding in findings)
    words = (("fault", "faults"), ("warning", "warnings"), ("pass", "passes"))
    parts = []
    for one, many in words:
        number = counts[one]  # type: ignore[index]
        parts.append(f"{number} {one if number == 1 else many}")
    return ", ".join(parts)
