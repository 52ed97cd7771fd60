"""Numbers and lists as text for people."""

import math
from collections.abc import Iterable


def format_number(value: float, digits: int = 3) -> str:
    """A number to so many significant digits: ``12,300``, ``0.00213``, ``1.52e9``.

    NaN and infinity are shown as ``-``.
    """
    if not math.isfinite(value):
        return "-"
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or 1e-3 <= abs(rounded) < 1e5:
        return f"{rounded:,.{max(digits, 5)}g}"
    mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def join_names(items: Iterable[object]) -> str:
    """Items separated by commas: ``4, 8, 16``."""
    return ", ".join(map(str, items))


def markdown_row(cells: Iterable[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"
