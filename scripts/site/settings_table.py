"""The settings of an agent as a table: name, default, range and text, from the classes."""

import ast
import dataclasses
import functools
import inspect
import textwrap
from typing import Any

from pgtoolkit.config import ranges
from pgtoolkit.limits import MAX_COUNT, MAX_LAYER, MAX_PASSES
from pgtoolkit.scripts.cli.formatting import markdown_row

FAR = tuple(f"at most {limit:,}" for limit in (MAX_COUNT, MAX_PASSES, MAX_LAYER))
"""Ranges that only keep a number from filling the memory are left out."""
HEADINGS = ("setting", "default", "must be", "meaning")


def settings_table(kind: Any) -> str:
    """A Markdown table with a row for each field of a dataclass of settings, in their order."""
    texts, limits = field_texts(kind), ranges(kind)
    rows = []
    for field in dataclasses.fields(kind):
        own = [found.text for name, found in limits if name == field.name]
        bounds = ", ".join(text for text in own if not text.endswith(FAR))
        cells = (f"`{field.name}`", f"`{field.default!r}`", bounds, texts.get(field.name, ""))
        rows.append(markdown_row([escape(cell) for cell in cells]))
    return "\n".join([markdown_row(HEADINGS), markdown_row(["---"] * len(HEADINGS)), *rows])


def escape(cell: str) -> str:
    """A cell's text in one line, without the table's own sign."""
    return " ".join(cell.split()).replace("|", "\\|").replace("$", "\\$")


def field_texts(kind: type) -> dict[str, str]:
    """The text under each field, of a class and of those it inherits; the nearest one counts."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            found |= own_texts(base)
    return found


@functools.cache
def own_texts(kind: type) -> dict[str, str]:
    """The text under each field of a class's own body."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[node.target.id] = after.value.value
    return found
