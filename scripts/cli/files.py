"""Files that commands write: checks before long work begins, and JSON."""

import json
import math
from pathlib import Path

from pgtoolkit.errors import RequestError
from pgtoolkit.extras import install_command

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")


def require_writable(path: Path, flag: str) -> None:
    """Checks that the file can be written, without leaving a new file behind.

    Raises:
        RequestError: it cannot be written; the message gives the reason.
    """
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise RequestError(
            f"{flag} {path} cannot be written ({error.strerror}): give another path"
        ) from error
    if not existed:
        path.unlink()


def require_picture(path: Path, flag: str) -> None:
    """Checks that a plot can be drawn and written to this file.

    Raises:
        RequestError: matplotlib is missing, the suffix is not that of a picture, or the file cannot
            be written.
    """
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise RequestError(f"{flag} must end in {', '.join(PICTURE_SUFFIXES)}, not {path.name}")
    try:
        import matplotlib  # noqa: F401  # is it installed?
    except ImportError as error:
        raise RequestError(f"plots need matplotlib: {install_command('plot')}") from error
    require_writable(path, flag)


def make_folder(path: Path, flag: str) -> None:
    """Makes a folder and those above it.

    Args:
        path: the folder; it may exist.
        flag: the option that names it, or a folder above it.

    Raises:
        RequestError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"the folder {path} cannot be made ({error.strerror}): give another {flag}"
        ) from error


def write_json(path: Path, content: object) -> None:
    """Writes indented JSON; ``content`` must not hold NaN or infinity.

    Raises:
        RequestError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from error


def number_or_null(value: float) -> float | None:
    """The number, or None for NaN and infinity, which JSON cannot hold."""
    return value if math.isfinite(value) else None


def json_value(value: object) -> object:
    """Plain values without NaN and infinity, which JSON cannot hold: they become None."""
    if isinstance(value, dict):
        return {name: json_value(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(entry) for entry in value]
    return number_or_null(value) if isinstance(value, float) else value
