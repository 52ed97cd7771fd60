"""Observations of any space of fixed size as rows of numbers, in Gymnasium's order.

A ``Dict`` is flattened key after key in the order of its space, a ``Tuple`` entry after entry, an
array row after row; a ``Discrete`` value becomes one-hot. Parts that are text are left out.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.networks.spaces import is_image

AnySpace = spaces.Space[Any]


@final
class Section(NamedTuple):
    """The place of one part of an observation in its row."""

    name: str
    """Such as ``velocity.angular``; empty for a space without parts."""
    start: int
    stop: int
    one_hot: bool
    """Whether the part is a category, or several, as ones and zeros."""


def needs_flattening(space: AnySpace) -> bool:
    """Whether observations of the space are something else than a row of numbers or an image."""
    return not (is_image(space) or (isinstance(space, spaces.Box) and len(space.shape) == 1))


def is_text(space: AnySpace) -> bool:
    """Whether the space's values are strings: ``Text``, or a library's own space of them."""
    return space.dtype is not None and space.dtype.kind in "US"


def text_parts(space: AnySpace) -> list[str]:
    """The names of a ``Dict``'s or ``Tuple``'s parts that are text, such as ``["mission"]``."""
    return [name for name, part in parts(space) if name and is_text(part)]


def parts(space: AnySpace) -> Iterator[tuple[str, AnySpace]]:
    """The parts of a ``Dict`` or ``Tuple`` in their order, with names like ``velocity.angular``.

    A space without parts is the only one, with the name ``""``.
    """
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield "", space
        return
    for name, part in space.items() if isinstance(space, spaces.Dict) else enumerate(space):
        for within, leaf in parts(part):
            yield f"{name}.{within}".rstrip("."), leaf


def flat_order(space: AnySpace) -> list[tuple[str, int]]:
    """The parts of a flattened ``Dict`` or ``Tuple`` in their order: name and size.

    ``[("position", 3), ("velocity.angular", 3)]``; a space without parts is ``[("", size)]``. Text
    is left out.
    """
    return [(name, spaces.flatdim(part)) for name, part in parts(space) if not is_text(part)]


def sections(space: AnySpace) -> list[Section]:
    """The places of the parts in the row."""
    ends = np.cumsum([size for _, size in flat_order(space)]).tolist()
    numbers = [(name, part) for name, part in parts(space) if not is_text(part)]
    starts = [0, *ends[:-1]]
    return [
        Section(name, start, stop, isinstance(part, spaces.Discrete | spaces.MultiDiscrete))
        for (name, part), start, stop in zip(numbers, starts, ends, strict=True)
    ]


def flat_rows(space: AnySpace, observation: Any) -> tuple[NDArray[Any], bool]:
    """One observation of the space, or a batch of them, as rows ``[N, O]``.

    They are equal to ``gymnasium.spaces.flatten`` of each.

    Args:
        space: of one observation.
        observation: a value of the space; or ``N`` of them as a vector environment has them, with
            one more axis in front of every array.

    Returns:
        The rows, and whether it was one observation alone.

    Raises:
        RequestError: the observation has other parts or shapes than the space, or a category that
            there is not.
    """
    named = [(*part, value) for part, value in _with_values(space, observation, "")]
    counts = {name: _count(name, part, value) for name, part, value in named}
    if len(set(counts.values())) > 1:
        raise RequestError(
            "the parts of the observation are not all of one observation or of equally many: "
            + ", ".join(f"{name} {_shown(count)}" for name, count in counts.items())
        )
    (count,) = set(counts.values())
    rows = [
        _part_rows(name, part, value if count is not None else value[None])
        for name, part, value in named
    ]
    return np.concatenate(rows, -1), count is None


def _with_values(
    space: AnySpace, value: Any, name: str
) -> Iterator[tuple[tuple[str, AnySpace], NDArray[Any]]]:
    """Every part that is not text, with its name and its values."""
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or set(value) - set(space) or set(space) - set(value):
            given = f"{sorted(map(str, value))}" if isinstance(value, Mapping) else type(value)
            raise RequestError(f"{_label(name)} has the parts {list(space)}, not {given}")
        pairs = [(str(key), part, value[key]) for key, part in space.items()]
    elif isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space):
            given = str(len(value)) if isinstance(value, tuple | list) else type(value)
            raise RequestError(f"{_label(name)} has {len(space)} parts, not {given}")
        pairs = [(str(i), part, value[i]) for i, part in enumerate(space)]
    else:
        if not is_text(space):
            yield (name, space), np.asarray(value)
        return
    for key, part, inner in pairs:
        yield from _with_values(part, inner, f"{name}.{key}" if name else key)


def _count(name: str, space: AnySpace, value: NDArray[Any]) -> int | None:
    """The number of observations that a part's values are of; None for one without an axis."""
    shape = space.shape or ()
    if value.shape == shape:
        return None
    if value.shape[1:] == shape and value.ndim > 0:
        return len(value)
    of_many = ", ".join(map(str, ["N", *shape]))
    raise RequestError(
        f"{_label(name)} has the shape {list(value.shape)}: give {list(shape)}, or [{of_many}] for "
        "N observations"
    )


def _shown(count: int | None) -> str:
    return "1" if count is None else f"[{count}]"


def _part_rows(name: str, space: AnySpace, values: NDArray[Any]) -> NDArray[Any]:
    """``[N, size]`` of the values ``[N, ...]`` of one part."""
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return values.reshape(len(values), -1)
    for value in values:
        if not space.contains(value):
            raise RequestError(f"{_label(name)} is {single_line(value)}, not in {space}")
    return np.stack([np.asarray(spaces.flatten(space, value)) for value in values])


def _label(name: str) -> str:
    return f"the part {name!r} of the observation" if name else "the observation"
