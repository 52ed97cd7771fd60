"""Tests of the picture of the architecture."""

from pathlib import Path

import pytest
from PIL import Image

import pgtoolkit
from pgtoolkit.scripts.architecture.import_graph import LAYERS
from pgtoolkit.scripts.cli.main import run_command
from pgtoolkit.scripts.studies import architecture_picture
from pgtoolkit.scripts.studies.architecture_picture import CAPTION_LINES, balanced_lines, shortened

ROOT = Path(__file__).parents[3]


def test_it_draws_every_suffix(tmp_path: Path) -> None:
    """Each picture is written, and its name printed."""
    for suffix in (".png", ".svg", ".pdf"):
        path = tmp_path / f"picture{suffix}"
        architecture_picture.run(["--output", str(path)])
        assert path.stat().st_size > 10_000


def test_another_suffix_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with 2 and names a suffix that works."""
    with pytest.raises(SystemExit) as caught:
        run_command(architecture_picture.run, ["--output", str(tmp_path / "picture.txt")])
    assert caught.value.code == 2
    assert ".png" in capsys.readouterr().err


def test_every_arrow_leads_down() -> None:
    """The layers are stacked, and inside a layer what is imported lies lower."""
    graph = architecture_picture.folder_graph(Path(pgtoolkit.__file__).parent)
    rows = architecture_picture.stacked_rows(graph)
    assert {box.layer for box in graph} == set(LAYERS)
    assert all(rows[start] > rows[end] for start, ends in graph.items() for end in ends)


def test_the_picture_in_the_documentation_is_up_to_date() -> None:
    """Else run ``scripts/studies/architecture_picture.py --output docs/architecture.png``."""
    with Image.open(ROOT / "docs" / "architecture.png") as image:
        drawn = image.info["Keywords"]
    graph = architecture_picture.folder_graph(Path(pgtoolkit.__file__).parent)
    assert drawn.splitlines() == architecture_picture.arrows_text(graph).splitlines()


def test_a_box_names_as_many_files_as_it_has_room_for() -> None:
    assert shortened("one, two, three") == "one, two, three"
    names = [f"module_{number}" for number in range(30)]
    found = shortened(", ".join(names))
    assert len(balanced_lines(found)) <= CAPTION_LINES
    kept = found.count(",") + 1
    assert found == f"{', '.join(names[:kept])} and {30 - kept} more" and kept > 5
