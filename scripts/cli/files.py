"""What commands write: numbers for people, JSON for programs; checked before long work begins."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from pgtoolkit.errors import RequestError

PICTURES = (".png", ".svg", ".pdf")


def short(value: float, digits: int = 3) -> str:
    """``12,300``, ``0.00213``, ``1.52e9``: a number to so many significant digits."""
    if not math.isfinite(value):
        return "-"
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or 1e-3 <= abs(rounded) < 1e5:
        return f"{rounded:,.{max(digits, 5)}g}"
    mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def require_writable(path: Path, flag: str) -> None:
    """Raises unless the file can be written; leaves no trace.

    Raises:
        RequestError: says why not.
    """
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise RequestError(
            f"{flag} {path} cannot be written ({error.strerror}): give another place"
        ) from error
    if not existed:
        path.unlink()


def require_picture(path: Path, flag: str) -> None:
    """Raises unless a plot can be drawn and written there.

    Raises:
        RequestError: matplotlib is missing, the ending is not that of a picture, or the file cannot
            be written.
    """
    if path.suffix.lower() not in PICTURES:
        raise RequestError(f"{flag} must end in {', '.join(PICTURES)}, not {path.name}")
    try:
        import matplotlib  # noqa: F401  # is it there?
    except ImportError as error:
        raise RequestError(
            'plots need matplotlib: pip install "policy-gradient-toolkit[plot]"'
        ) from error
    require_writable(path, flag)


def write_json(path: Path, content: object) -> None:
    """Writes JSON.

    Raises:
        RequestError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from error


def number_or_null(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def listed(items: Sequence[object]) -> str:
    """``4, 8, 16``."""
    return ", ".join(map(str, items))
