"""Progress of long commands: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.scripts.cli.formatting import format_number

SECONDS_BETWEEN_LINES = 5.0

LABELS = {name: row.label for name, row in CATALOGUE.items()}
LABELS["measure_valued"] = "measure valued"
"""Estimators whose variance a run may log; the last one in variational inference only."""


class BarView:
    """Base class of the commands' progress views. Use as a context manager.

    Args:
        description: text beside the bar until there is another.
        total: number of steps at which the bar is full.
    """

    def __init__(self, description: str, total: int) -> None:
        self.console, self.total = Console(), total
        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(description, total=total)
        self._last_line = 0.0

    def show(self, completed: int, description: str, *, finished: bool) -> None:
        """Updates the bar; without a terminal prints a line, at most one in five seconds.

        Args:
            completed: steps done.
            description: text beside the bar, or at the end of the line.
            finished: fills the bar, even if fewer steps were done; always prints the line.
        """
        if self.console.is_terminal:
            done = self.total if finished else completed
            self.bar.update(self.task, completed=done, total=self.total, description=description)
        elif finished or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(f"{completed}/{self.total} steps  {description}", flush=True)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()


def describe_variances(scalars: Mapping[str, float]) -> list[str]:
    """``["score function variance 1,230", ...]`` for each estimator in the logged scalars."""
    return [
        f"{label} variance {format_number(scalars[tag])}"
        for name, label in LABELS.items()
        if (tag := f"gradient/{name}/variance") in scalars
    ]
