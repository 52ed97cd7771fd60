"""Generated files, written only where they change."""

from collections.abc import Mapping
from pathlib import Path


def write_changed(folder: Path, pages: Mapping[str, str]) -> None:
    """Makes the folder hold exactly these pages; an unchanged one and folders are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
