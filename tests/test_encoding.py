"""Every text file is read and written in UTF-8, whatever the locale is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TEXT_METHODS = ("read_text", "write_text")

OPENERS = ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile")

OTHER_OPENERS = ("os.open", "RunFolder.open", "Image.open")
"""What they open is no text file."""


def without_encoding(code: str) -> Iterator[ast.Call]:
    """The calls that read or write a file as text without an encoding."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call) or is_given(node):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if (name in TEXT_METHODS and not is_of_a_writer(node)) or (
            name in OPENERS and is_text(node)
        ):
            yield node


def is_given(node: ast.Call) -> bool:
    return any(keyword.arg == "encoding" for keyword in node.keywords)


def is_of_a_writer(node: ast.Call) -> bool:
    """``RunWriter.write_text(tag, text, step)`` writes to TensorBoard."""
    return len(node.args) == 3


def is_text(node: ast.Call) -> bool:
    """Whether ``open(...)`` opens a text file: its mode is not binary, and it is a file's."""
    if ast.unparse(node.func) in OTHER_OPENERS:
        return False
    modes = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
    return not any(isinstance(x, ast.Constant) and "b" in str(x.value) for x in modes)


@pytest.mark.parametrize("folder", ["pgtoolkit", "envs", "agents", "scripts"])
def test_files_are_read_and_written_in_utf8(folder: str) -> None:
    """The encoding stands in every call; a locale without UTF-8 would change it."""
    paths = [p for p in (ROOT / folder).rglob("*.py") if not any(x.is_symlink() for x in p.parents)]
    found = {
        f"{path.relative_to(ROOT)}:{call.lineno}": ast.unparse(call)
        for path in paths
        for call in without_encoding(path.read_text(encoding="utf-8"))
    }
    assert len(paths) > 3 and found == {}


def test_a_call_without_an_encoding_is_found() -> None:
    """Text calls only: binary ones, and those of other classes, have none."""
    code = "p.read_text()\nopen(p)\nopen(p, 'rb')\nos.open(p, 0)\nwriter.write_text('a', 'b', 0)\n"
    code += "p.write_text(x)\np.open('w')\nopen(p, encoding='utf-8')\n"
    assert [call.lineno for call in without_encoding(code)] == [1, 2, 6, 7]
