"""Whether an observation is one that its space allows, by form: types, keys and shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces import Tuple

from pgtoolkit.errors import single_line
from pgtoolkit.networks.flat_rows import AnySpace, is_text

SHOWN_CHARACTERS = 80
"""Most characters of an observation that a message shows."""


def mismatch(space: AnySpace, value: Any, part: str = "") -> str:
    """How an observation differs in form from its space, in words; empty if it does not.

    Numbers may be of another dtype and outside of a ``Box``'s bounds. Text is not looked at.

    Args:
        space: the observation's space.
        value: the observation.
        part: the name of the part of the whole observation that this is.
    """
    if is_text(space):
        return ""
    match space:
        case spaces.Dict():
            return _mapping_mismatch(space, value, part)
        case Tuple():
            return _sequence_mismatch(space, value, part)
        case spaces.Discrete():
            return _category_mismatch(space, value, part)
        case spaces.Box() | spaces.MultiBinary() | spaces.MultiDiscrete():
            return _array_mismatch(space, value, part)
        case _:
            return ""


def _array_mismatch(space: AnySpace, value: Any, part: str) -> str:
    try:
        array = np.asarray(value)
    except (RuntimeError, TypeError, ValueError):  # lists of different lengths, odd tensors
        return f"{_subject(part)} is {_show(value)} where the space has an array {_shape(space)}"
    if array.dtype.kind not in "biuf":
        return f"{_subject(part)} is {_show(value)} where the space has numbers {_shape(space)}"
    if array.shape != space.shape:
        return (
            f"{_subject(part)} has the shape {list(array.shape)} where the space has "
            f"{_shape(space)}"
        )
    if not isinstance(space, spaces.MultiDiscrete):
        return ""
    if array.dtype.kind == "f":
        return f"{_subject(part)} is {_show(value)} where the space has integers, {space}"
    inside = (array >= space.start) & (array < space.start + space.nvec)
    return "" if inside.all() else f"{_subject(part)} is {_show(value)}, outside of its {space}"


def _category_mismatch(space: spaces.Discrete, value: Any, part: str) -> str:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biu":
        return f"{_subject(part)} is {_show(value)} where the space has one integer, {space}"
    inside = space.start <= int(array.reshape(())) < space.start + space.n
    return "" if inside else f"{_subject(part)} is {int(array.reshape(()))}, outside of its {space}"


def _mapping_mismatch(space: spaces.Dict, value: Any, part: str) -> str:
    if not isinstance(value, Mapping):
        return f"{_subject(part)} is {_show(value)} where the space has a dictionary"
    for key, of_part in space.items():
        if key not in value and not is_text(of_part):
            return f"{_subject(part)} has no {key!r}, which is in its space"
        found = mismatch(of_part, value.get(key), _join(part, key))
        if found:
            return found
    return ""


def _sequence_mismatch(space: "Tuple[Any]", value: Any, part: str) -> str:
    if not isinstance(value, Sequence | np.ndarray) or len(value) != len(space):
        return f"{_subject(part)} is {_show(value)} where the space has a tuple of {len(space)}"
    pairs = enumerate(zip(space, value, strict=True))
    found = (mismatch(of_part, entry, _join(part, i)) for i, (of_part, entry) in pairs)
    return next((text for text in found if text), "")


def _join(part: str, name: object) -> str:
    return f"{part}.{name}".lstrip(".")


def _subject(part: str) -> str:
    return f"the part {part!r} of the observation" if part else "the observation"


def _shape(space: AnySpace) -> str:
    assert space.shape is not None, "Box, MultiBinary and MultiDiscrete have a shape"
    return str(list(space.shape))


def _show(value: Any) -> str:
    text = single_line(repr(value))
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
