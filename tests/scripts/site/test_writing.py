"""Generated files."""

import os
from pathlib import Path

from pgtoolkit.scripts.site.writing import write_changed


def test_the_folder_holds_these_pages_and_an_unchanged_one_keeps_its_time(tmp_path: Path) -> None:
    folder = tmp_path / "generated" / "api"
    write_changed(folder, {"same.md": "1", "other.md": "2", "gone.md": "3"})
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    write_changed(folder, {"same.md": "1", "other.md": "4"})
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "same.md": "1",
        "other.md": "4",
    }
    assert (folder / "same.md").stat().st_mtime == 1 < (folder / "other.md").stat().st_mtime
