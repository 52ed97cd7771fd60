"""Converts trees of Python and NumPy numbers to flat lists of numbers and back, exactly.

The types are stored too, because they affect results: ``float32 + float`` is rounded to single
precision.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple, final

import numpy as np

_NONE, _BOOL, _INT, _FLOAT, _SCALAR, _ARRAY, _TUPLE, _LIST, _ABSENT = range(9)
"""Codes of the kinds of nodes."""

_PYTHON_CODES: dict[Any, int] = {type(None): _NONE, bool: _BOOL, int: _INT, float: _FLOAT}

_CONTAINER_CODES = {tuple: _TUPLE, list: _LIST}

_DTYPES: dict[int, np.dtype] = {np.dtype(kind).num: np.dtype(kind) for kind in "?bhilqBHILQefd"}
"""The dtypes that can be converted, by NumPy's number of the dtype."""

_FLOAT64_NUM = np.dtype(np.float64).num

_INT64_NUMS = {num for num, dtype in _DTYPES.items() if dtype.kind in "iu" and dtype.itemsize == 8}
"""Numbers of the dtypes some of whose integers a float64 cannot hold exactly."""

_MAX_EXACT_INT = 2**53
"""Up to this size a float64 holds every integer exactly."""


@final
class Absent:
    """The type of :data:`ABSENT`."""


ABSENT = Absent()
"""Stands for an attribute that does not exist at the moment."""


class Numbers(NamedTuple):
    """A flattened tree."""

    codes: tuple[int, ...]
    """Types and shapes of the tree's nodes."""
    values: list[float]
    """The tree's numbers, in the order of the nodes."""


def flatten(tree: Any) -> Numbers | None:
    """Flattens a tree of tuples, lists, arrays, numbers, None and :data:`ABSENT`.

    Returns None if the tree contains anything else, or an integer that float64 cannot hold.
    """
    codes: list[int] = []
    values: list[float] = []
    return Numbers(tuple(codes), values) if _append(tree, codes, values) else None


def unflatten(codes: tuple[float, ...], values: list[float]) -> Any:
    """Rebuilds the tree. Codes and values may be followed by padding.

    An integer whose value was changed to a fraction is returned as a floating-point number.
    """
    return _compiled_reader(codes)(values)


def are_floats(codes: tuple[int, ...]) -> list[bool]:
    """For each value of a flattened tree, whether it is a floating-point number."""
    found: list[bool] = []
    _append_is_float(iter(codes), found)
    return found


def _append(tree: Any, codes: list[int], values: list[float]) -> bool:
    """Appends the tree's codes and values; false if it cannot be flattened."""
    kind: Any = type(tree)
    if kind is np.ndarray or isinstance(tree, np.generic):
        array_codes = _array_codes(tree.dtype, tree.shape if kind is np.ndarray else None)
        if array_codes is None:
            return False
        codes += array_codes
        values += tree.ravel().tolist()
        return tree.dtype.num not in _INT64_NUMS or _are_exact_in_float64(tree)
    if kind in _PYTHON_CODES:
        codes.append(_PYTHON_CODES[kind])
        values += () if tree is None else (tree,)
        return kind is not int or abs(tree) <= _MAX_EXACT_INT
    if kind in _CONTAINER_CODES:
        codes += (_CONTAINER_CODES[kind], len(tree))
        return all(_append(branch, codes, values) for branch in tree)
    codes.append(_ABSENT)
    return kind is Absent


@lru_cache
def _array_codes(dtype: np.dtype, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The codes of an array, or of a scalar if ``shape`` is None; None for other dtypes."""
    if dtype.num not in _DTYPES:
        return None
    return (_SCALAR, dtype.num) if shape is None else (_ARRAY, dtype.num, len(shape), *shape)


def _are_exact_in_float64(integers: Any) -> bool:
    return bool(np.all((integers <= _MAX_EXACT_INT) & (integers >= -_MAX_EXACT_INT)))


@lru_cache(maxsize=1024)
def _compiled_reader(codes: tuple[float, ...]) -> Callable[[list[float]], Any]:
    """A function from the values to the tree; cached, because it runs at every step."""
    return _compile(iter(map(int, codes)))[1]


def _compile(codes: Iterator[int]) -> tuple[int, Callable[[list[float]], Any]]:
    """The number of values of the next node, and the function that rebuilds it from them."""
    code = next(codes)
    if code == _ARRAY:
        dtype = _DTYPES[next(codes)]
        shape = tuple(islice(codes, next(codes)))
        return math.prod(shape), partial(_array, dtype, shape, math.prod(shape))
    if code == _SCALAR:
        return 1, partial(_scalar, _DTYPES[next(codes)])
    if code in (_TUPLE, _LIST):
        branches = [_compile(codes) for _ in range(next(codes))]
        return sum(size for size, _ in branches), partial(_container, code == _TUPLE, branches)
    if code in (_NONE, _ABSENT):
        return 0, lambda _: None if code == _NONE else ABSENT
    return 1, {_FLOAT: _float, _INT: _int, _BOOL: lambda values: bool(values[0])}[code]


def _array(dtype: np.dtype, shape: tuple[int, ...], size: int, values: list[float]) -> Any:
    array = np.array(values[:size], dtype=np.float64).reshape(shape)
    return array if dtype.num == _FLOAT64_NUM else _cast_if_exact(array, dtype)


def _scalar(dtype: np.dtype, values: list[float]) -> Any:
    number = np.float64(values[0])
    return number if dtype.num == _FLOAT64_NUM else _cast_if_exact(number, dtype)


def _container(
    is_tuple: bool,
    branches: list[tuple[int, Callable[[list[float]], Any]]],
    values: list[float],
) -> Any:
    start, found = 0, []
    for size, read in branches:
        found.append(read(values[start : start + size]))
        start += size
    return tuple(found) if is_tuple else found


def _float(values: list[float]) -> float:
    return float(values[0])


def _int(values: list[float]) -> float:
    number = float(values[0])
    return int(number) if number.is_integer() else number


def _cast_if_exact(numbers: Any, dtype: np.dtype) -> Any:
    """Casts to the dtype, but leaves float64 numbers that an integer dtype cannot hold."""
    if dtype.kind in "fb":
        return numbers.astype(dtype)
    with np.errstate(invalid="ignore"):
        cast = numbers.astype(dtype)
    return cast if np.array_equal(cast, numbers) else numbers


def _append_is_float(codes: Iterator[int], found: list[bool]) -> None:
    """Appends the answers of :func:`are_floats` for the next node."""
    code = next(codes)
    if code in (_ARRAY, _SCALAR):
        is_float = _DTYPES[next(codes)].kind == "f"
        size = math.prod(islice(codes, next(codes))) if code == _ARRAY else 1
        found += [is_float] * size
    elif code in (_TUPLE, _LIST):
        for _ in range(next(codes)):
            _append_is_float(codes, found)
    elif code not in (_NONE, _ABSENT):
        found.append(code == _FLOAT)
