"""The site's pages: laws that hold for every one of them."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
EXECUTED = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if "generated" not in path.parts and "{code-cell}" in path.read_text(encoding="utf-8")
]
MAX_WIDTH = 88
"""Characters of a line of code that fit into the site's column."""
MAX_LINES = 40


def cells(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", text, re.M | re.S)


def shown(path: Path) -> list[str]:
    return [cell for cell in cells(path) if ":tags: [remove-cell]" not in cell]


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.stem)
def test_cells_are_short_and_fit_into_the_column(path: Path) -> None:
    for cell in shown(path):
        lines = [line for line in cell.splitlines() if line.strip()]
        assert len(lines) <= MAX_LINES, lines[0]
        assert all(len(line) <= MAX_WIDTH for line in lines), max(lines, key=len)


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.stem)
def test_an_executed_page_says_so_in_its_header_and_checks_itself(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("---\nfile_format: mystnb\n")
    code = "\n".join(cells(path))
    assert "assert" in code or "says(" in code


NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs_and_checks_itself(path: Path) -> None:
    """What it prints is computed when the site is built."""
    code = [
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if "outputs" in cell
    ]
    assert len(code) > 4 and all(cell["outputs"] == [] for cell in code)
    assert any("assert" in "".join(cell["source"]) for cell in code)
    widths = [len(line.rstrip("\n")) for cell in code for line in cell["source"]]
    assert max(widths) <= 100


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.stem)
def test_the_prose_check_of_a_page_reads_that_page(path: Path) -> None:
    named = re.findall(r'Prose\("([^"]+)"\)', "\n".join(cells(path)))
    assert all(name == path.name for name in named)
