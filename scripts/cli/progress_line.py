"""The progress of a training on a terminal: one line that is never wrapped."""

from typing import final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from pgtoolkit.scripts.cli.training_status import TrainingStatus, facts

COLUMNS_OF_BAR = 8
"""One column in so many is the bar's: 10 of 80."""

BAR, ASCII_BAR = ("━", "╸", "─"), ("=", "=", "-")
"""Characters of a bar: what is done, half a column of it, and what is left."""


@final
class ProgressLine:
    """Bar, percentage and :func:`facts`; what does not fit into the width is cut from the right."""

    def __init__(self) -> None:
        self.status: TrainingStatus | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.status is None:
            yield _cut("training", options.max_width)
            return
        width = max(1, options.max_width // COLUMNS_OF_BAR)
        yield _bar(self.status.share, width, *(ASCII_BAR if options.ascii_only else BAR))
        percentage = f" {int(100 * self.status.share):>3}%"
        yield _cut("  ".join([percentage, *facts(self.status)]), options.max_width - width)


def _bar(share: float, width: int, done: str, half: str, left: str) -> Text:
    """A bar that a terminal without colours shows too."""
    halves = int(2 * width * share)
    complete = done * (halves // 2) + half * (halves % 2)
    back = left * (width - len(complete))
    return Text.assemble((complete, "bar.complete"), (back, "bar.back"), end="")


def _cut(text: str, width: int) -> Text:
    """The first ``width`` columns of a text."""
    found = Text(text, no_wrap=True, overflow="crop", end="")
    found.truncate(max(0, width))
    return found
