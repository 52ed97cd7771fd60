"""Whether a value out of JSON fits the annotation of the parameter that it is given to.

JSON holds null, true and false, numbers, text, lists and objects. An annotation of another kind,
such as a class of a package, is not judged: every value fits it here.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from torch import Tensor

PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    float: ((int, float), "a number"),
    int: ((int,), "an integer"),
    bool: ((bool,), "true or false"),
    str: ((str,), "text"),
    type(None): ((type(None),), "null"),
    None: ((type(None),), "null"),
}
"""The annotations with their values and words."""

OF_JSON = (int, float, str, list, tuple, dict, type(None))

ARRAYS = (np.ndarray, Tensor)

MAX_INTEGER = 2**63
"""Integers are below it, because NumPy and torch hold no larger ones."""


def annotations_of(creator: Callable[..., object]) -> dict[str, Any]:
    """The annotation of each parameter; none where they cannot be evaluated."""
    while isinstance(creator, functools.partial):
        creator = creator.func
    function = creator.__init__ if isinstance(creator, type) else creator  # type: ignore[misc]
    try:
        return typing.get_type_hints(function)
    except Exception:  # names that only type checkers import, and callables without annotations
        return {}


def fits(value: object, annotation: Any) -> bool:
    """Whether a value out of JSON has the annotated type; another value always has."""
    if not isinstance(value, OF_JSON):
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in PLAIN:
        is_kind = isinstance(value, PLAIN[annotation][0])
        return is_kind and isinstance(value, bool) <= (annotation is bool) and _is_held(value)
    if origin is Annotated:
        return fits(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, kind) for kind in arguments)
    if origin is Literal:
        return value in arguments
    kind = origin or annotation
    if kind in ARRAYS:
        return isinstance(value, int | float | list) and not isinstance(value, bool)
    if not inspect.isclass(kind) or kind is object:
        return True
    if issubclass(kind, Mapping):
        return isinstance(value, dict)
    if issubclass(kind, Sequence):
        return isinstance(value, list | tuple) and _entries_fit(value, arguments)
    return True


def _is_held(value: object) -> bool:
    return not isinstance(value, int) or abs(value) < MAX_INTEGER


def _entries_fit(values: Sequence[object], kinds: tuple[Any, ...]) -> bool:
    """Whether the entries of a list fit ``Sequence[kind]`` or ``tuple[kind, ...]``."""
    return (
        len(kinds) not in (1, 2)
        or kinds[-1] not in (..., kinds[0])
        or all(fits(value, kinds[0]) for value in values)
    )


def words_of(annotation: Any) -> str:
    """An annotation in words, such as ``a number or null``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in PLAIN:
        return PLAIN[annotation][1]
    if origin is Annotated:
        return words_of(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(words_of, arguments)))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    kind = origin or annotation
    if kind in ARRAYS:
        return "numbers"
    if inspect.isclass(kind) and issubclass(kind, Sequence):
        return "a list"
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return "an object"
    return getattr(kind, "__name__", str(kind))
