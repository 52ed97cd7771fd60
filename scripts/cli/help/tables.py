"""Names with notes beside them, within the width of a terminal."""

import shutil
import textwrap
from collections.abc import Mapping

MAX_WIDTH, MIN_WIDTH = 80, 40


def table(rows: Mapping[str, str], width: int) -> str:
    """Names with their notes beside them, each on as many lines as it needs."""
    column = max(map(len, rows)) + 4
    return "\n".join(
        textwrap.fill(
            note,
            width,
            initial_indent=f"  {name:<{column - 2}}",
            subsequent_indent=" " * column,
            break_on_hyphens=False,
        )
        for name, note in rows.items()
    )


def text_width() -> int:
    """Columns of a help text: those of the terminal, between ``MIN_WIDTH`` and ``MAX_WIDTH``."""
    return max(MIN_WIDTH, min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 24)).columns))
