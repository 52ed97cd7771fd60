"""Output of ``pgtoolkit check-env``: progress on stderr, then the findings as a table."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgtoolkit.envs.checks.finding import Finding, Part, Status

PARTS: tuple[Part, ...] = ("interface", "behaviour", "gradients", "horizon")

STATUS_STYLES: dict[Status, str] = {
    "pass": "green",
    "warning": "yellow",
    "fault": "bold red",
    "not checked": "cyan",
}

STATUS_NOUNS: dict[Status, tuple[str, str]] = {
    "fault": ("fault", "faults"),
    "warning": ("warning", "warnings"),
    "not checked": ("not checked", "not checked"),
    "pass": ("pass", "passes"),
}
"""Singular and plural, in the order of the summary."""

PIPE_WIDTH = 100
"""Columns of the table where stdout is no terminal."""


@final
class CheckProgress:
    """Shows on stderr which check runs: a line that changes on a terminal, else a line each.

    Use it as a context manager. Afterwards ``seconds`` is the time that passed inside.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.seconds = 0.0
        self._began = time.monotonic()
        self._status = self.console.status("checking")

    def begin(self, stage: str) -> None:
        """Shows the name of the stage that begins."""
        if self.console.is_terminal:
            self._status.update(f"checking {stage}")
        else:
            print(f"checking {stage}", file=sys.stderr, flush=True)

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


def print_findings(name: str, findings: Sequence[Finding], seconds: float) -> None:
    """Prints a table for each part of the environment ``name``, then a summary."""
    width = None if Console().is_terminal else PIPE_WIDTH
    console = Console(highlight=False, markup=False, width=width)
    for part in PARTS:
        chosen = [finding for finding in findings if finding.part == part]
        if chosen:
            console.print(part.capitalize(), style="bold")
            console.print(findings_table(chosen))
    console.print(f"{name}: {summary(findings)} ({seconds:.1f} s)", style="bold")


def findings_table(findings: Sequence[Finding]) -> Table:
    """A row for each finding: status, check and text; problems with meaning and advice below."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=13)
    table.add_column(no_wrap=True, min_width=22)
    table.add_column(overflow="fold")
    for finding in findings:
        style = STATUS_STYLES[finding.status]
        text = Text(finding.finding)
        if finding.status in ("warning", "fault"):
            text.append(f"\nThat means: {finding.meaning}.", style="dim")
            text.append(f"\nTo do: {finding.advice}.")
        table.add_row(Text(f"  {finding.status}", style=style), finding.check, text)
    return table


def summary(findings: Sequence[Finding]) -> str:
    """``1 fault, 2 warnings, 1 not checked, 20 passes``; without the third if all was checked."""
    counts = Counter(finding.status for finding in findings)
    return ", ".join(
        f"{counts[status]} {one if counts[status] == 1 else many}"
        for status, (one, many) in STATUS_NOUNS.items()
        if status != "not checked" or counts[status]
    )
