"""The progress of a training on a terminal: one line that is never wrapped."""

from collections.abc import Sequence
from textwrap import shorten
from typing import final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from pgtoolkit.scripts.cli.display.training_status import TrainingStatus, facts

COLUMNS_OF_BAR = 8
"""One column in so many is the bar's: 10 of 80."""

BAR, ASCII_BAR = ("━", "╸", "─"), ("=", "=", "-")
"""Characters of a bar: what is done, half a column of it, and what is left."""

MORE = "..."
SHORTEST_ALARM = f"!{MORE}"


@final
class ProgressLine:
    """Bar, percentage and :func:`facts`, as many of them as fit into the width whole.

    A number that is cut would be another number.
    """

    def __init__(self) -> None:
        self.status: TrainingStatus | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.status is None:
            yield _line("training"[: options.max_width])
            return
        width = max(1, options.max_width // COLUMNS_OF_BAR)
        yield _bar(self.status.share, width, *(ASCII_BAR if options.ascii_only else BAR))
        percentage = f" {int(100 * self.status.share):>3}%"
        yield _line(_fitting([percentage, *facts(self.status)], options.max_width - width))


def _bar(share: float, width: int, done: str, half: str, left: str) -> Text:
    """A bar that a terminal without colours shows too."""
    halves = int(2 * width * share)
    complete = done * (halves // 2) + half * (halves % 2)
    back = left * (width - len(complete))
    return Text.assemble((complete, "bar.complete"), (back, "bar.back"), end="")


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="crop", end="")


def _fitting(found: Sequence[str], width: int) -> str:
    """The first facts that fit into the width whole; of an alarm as many words as do."""
    text = ""
    for fact in found:
        gap = "  " if text else ""
        room = width - cell_len(text + gap)
        if cell_len(fact) > room:
            words = fact.startswith("!") and room >= len(SHORTEST_ALARM)
            return text + gap + shorten(fact, room, placeholder=MORE) if words else text
        text += gap + fact
    return text
