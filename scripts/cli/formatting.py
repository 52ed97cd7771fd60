"""Numbers and lists as text for people."""

from collections.abc import Iterable

from pgtoolkit.formatting import format_number as format_number


def join_names(items: Iterable[object]) -> str:
    """Items separated by commas: ``4, 8, 16``."""
    return ", ".join(map(str, items))


def markdown_row(cells: Iterable[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"
