"""The options of a command, read from its dataclass: for help texts and shell completion.

The command line itself is parsed by tyro, from the same dataclass.
"""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Union,
    final,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro

from pgtoolkit.errors import single_line

NAMES = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH", type(None): "None"}
"""What stands for a value of a type."""

PATHS = ("run", "runs", "run_dir", "config")
"""Fields that hold a path as text."""


@final
class Option(NamedTuple):
    """One option of a command, or one of its arguments by position."""

    name: str
    """The field's name."""
    flags: tuple[str, ...]
    """``--num-envs``, or ``--layer-norm`` and ``--no-layer-norm``; nothing by position."""
    value: str
    """The value in words, such as ``INT or None``; empty for a switch."""
    choices: tuple[str, ...]
    """The values that there are, where they can be listed."""
    is_path: bool
    """Whether the value is a file or a folder."""
    text: str
    """What it means, on one line."""
    default: str | None
    """The default as it would be written; None where the option must be given."""


def options_of(kind: Any) -> list[Option]:
    """The options of a dataclass, in its order."""
    hints, texts = get_type_hints(kind, include_extras=True), field_texts(kind)
    return [
        option_of(field, hints[field.name], texts.get(field.name, ""))
        for field in dataclasses.fields(kind)
    ]


def option_of(field: dataclasses.Field[Any], annotation: Any, text: str) -> Option:
    """One field of a dataclass as an option.

    Args:
        field: the dataclass's.
        annotation: its annotation, with its extras.
        text: what it means.
    """
    is_positional, metavar, kind = unwrapped(annotation)
    flag = f"--{field.name.replace('_', '-')}"
    flags = (flag, flag.replace("--", "--no-", 1)) if kind is bool else (flag,)
    is_path = Path in (kind, *get_args(kind)) or field.name in PATHS
    words = value_words(kind).replace("TEXT", "PATH" if is_path else "TEXT")
    if is_positional:
        words = words.replace("PATH" if is_path else "TEXT", field.name.upper())
    return Option(
        field.name,
        () if is_positional else flags,
        "" if kind is bool else metavar or words,
        choices_of(kind),
        is_path,
        text,
        default_text(field),
    )


def unwrapped(annotation: Any) -> tuple[bool, str | None, Any]:
    """Whether an annotation is of an argument by position, its given word, and its type.

    The type of an option that is given once for each entry is that of an entry.
    """
    if get_origin(annotation) is not Annotated:
        return False, None, annotation
    kind, *extras = get_args(annotation)
    metavars = [word for extra in extras if (word := getattr(extra, "metavar", None))]
    kind = get_args(kind)[0] if tyro.conf.UseAppendAction in extras else kind
    return tyro.conf.Positional in extras, metavars[0] if metavars else None, kind


def value_words(kind: Any) -> str:
    """A type in words, such as ``INT or None``, ``INT ...`` or ``{auto,none}``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(value_words(part) for part in arguments)
    if origin is Literal:
        return f"{{{','.join(map(str, arguments))}}}"
    if origin is tuple and arguments[-1] is ...:
        return f"{value_words(arguments[0])} ..."
    if origin is tuple:
        return " ".join(value_words(part) for part in arguments)
    return NAMES.get(kind, "TEXT")


def choices_of(kind: Any) -> tuple[str, ...]:
    """The values of a type that can be listed, also of the entries of a tuple."""
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType, tuple):
        return tuple(name for part in get_args(kind) for name in choices_of(part))
    return ()


def default_text(field: dataclasses.Field[Any]) -> str | None:
    """A field's default as the command line writes it; None if it has none."""
    if field.default is dataclasses.MISSING:
        return None
    if isinstance(field.default, tuple):
        return " ".join(map(str, field.default))
    return str(field.default)


def field_texts(kind: type[Any]) -> dict[str, str]:
    """The text under each field of a dataclass and its bases, each on one line."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            found |= _own_texts(base)
    return found


def _own_texts(kind: type[Any]) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):  # made at run time, or without its source
        return {}
    [class_] = ast.parse(source).body
    body = class_.body if isinstance(class_, ast.ClassDef) else []
    return {
        field.target.id: single_line(text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
