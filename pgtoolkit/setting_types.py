"""The types of settings: whether a value has the annotated one, and what that is in words.

The command line parses text into these types. In Python a setting may be given anything.
"""

import functools
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "True or False",
    str: "text",
    type(None): "None",
}


@functools.cache
def types_of(kind: Any) -> dict[str, Any]:
    """The annotated type of each field of a dataclass, without its ranges."""
    return get_type_hints(kind)


def plain_value(value: Any, annotation: Any) -> Any:
    """The value as a plain one of Python.

    A number of NumPy's becomes one of Python's, a whole number that is written as ``1e6`` an
    integer where one belongs, and a list a tuple where that belongs. Every other value is returned
    as it is.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer() and is_whole(annotation):
        return int(value)
    is_tuple = any(get_origin(kind) is tuple for kind in (annotation, *get_args(annotation)))
    if isinstance(value, list | tuple) and is_tuple:
        return tuple(plain_value(entry, None) for entry in value)
    return value


def is_whole(annotation: Any) -> bool:
    """Whether the annotated numbers are whole: ``int``, or ``int | None``."""
    kinds = (annotation, *get_args(annotation))
    return int in kinds and float not in kinds and get_origin(annotation) is not tuple


def fits(value: object, annotation: Any) -> bool:
    """Whether a value has the annotated type. A type that is not known here fits every value."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in WORDS:
        return isinstance(value, annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, kind) for kind in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and _entries_fit(value, arguments)
    return True


def _entries_fit(values: tuple[object, ...], kinds: tuple[Any, ...]) -> bool:
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(values)
    same_length = len(values) == len(kinds)
    return same_length and all(fits(*pair) for pair in zip(values, kinds, strict=True))


def words_of(annotation: Any) -> str:
    """The annotation in words, such as ``a number or None``; completes "must be ..."."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    if origin in (Union, types.UnionType):
        return " or ".join(words_of(kind) for kind in arguments)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        example = {int: ", such as (64, 64)", float: ", such as (0.9, 0.5)"}.get(arguments[0], "")
        return f"a tuple of which each is {words_of(arguments[0])}{example}"
    if origin is tuple:
        return f"a tuple of {len(arguments)}, each {words_of(arguments[0])}"
    return getattr(annotation, "__name__", str(annotation))
