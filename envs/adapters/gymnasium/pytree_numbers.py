"""Python objects made of numbers, as plain numbers and back, to the bit and with their types.

What a computation gives depends on the types as well: ``float32 + float`` is rounded to single.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple, final

import numpy as np

_NONE, _BOOL, _INT, _FLOAT, _SCALAR, _ARRAY, _TUPLE, _LIST, _ABSENT = range(9)

_PLAIN: dict[Any, int] = {type(None): _NONE, bool: _BOOL, int: _INT, float: _FLOAT}

_DTYPES: dict[int, np.dtype] = {np.dtype(kind).num: np.dtype(kind) for kind in "?bhilqBHILQefd"}

_FLOAT64 = np.dtype(np.float64).num

# Of which some are beyond what a float64 holds exactly.
_LONG = {num for num, dtype in _DTYPES.items() if dtype.kind in "iu" and dtype.itemsize == 8}

_CONTAINERS = {tuple: _TUPLE, list: _LIST}

# Beyond it a float64 skips integers.
_LARGEST_INT = 2**53


@final
class Absent:
    """Stands for an attribute that is not there."""


ABSENT = Absent()


class Numbers(NamedTuple):
    """A tree, flattened."""

    codes: tuple[int, ...]
    """Its types and shapes."""
    values: list[float]


def flatten(tree: Any) -> Numbers | None:
    """The numbers of a tree of tuples, lists, arrays, numbers, None and :data:`ABSENT`.

    None if it has anything else in it, or an integer that float64 cannot hold.
    """
    codes: list[int] = []
    values: list[float] = []
    return Numbers(tuple(codes), values) if _append(tree, codes, values) else None


def unflatten(codes: tuple[float, ...], values: list[float]) -> Any:
    """The tree again. Codes and values may be followed by others.

    An integer that was moved off the integers comes back as a floating-point number.
    """
    return _reader(codes)(values)


def are_floats(codes: tuple[int, ...]) -> list[bool]:
    """Of each value, whether it was a floating-point number."""
    found: list[bool] = []
    _mark(iter(codes), found)
    return found


def _append(tree: Any, codes: list[int], values: list[float]) -> bool:
    kind: Any = type(tree)
    if kind is np.ndarray or isinstance(tree, np.generic):
        form = _form(tree.dtype, tree.shape if kind is np.ndarray else None)
        if form is None:
            return False
        codes += form
        values += tree.ravel().tolist()
        return tree.dtype.num not in _LONG or _fits(tree)
    if kind in _PLAIN:
        codes.append(_PLAIN[kind])
        values += () if tree is None else (tree,)
        return kind is not int or abs(tree) <= _LARGEST_INT
    if kind in _CONTAINERS:
        codes += (_CONTAINERS[kind], len(tree))
        return all(_append(branch, codes, values) for branch in tree)
    codes.append(_ABSENT)
    return kind is Absent


@lru_cache
def _form(dtype: np.dtype, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The codes of an array, or of a scalar, if it is one of numbers."""
    if dtype.num not in _DTYPES:
        return None
    return (_SCALAR, dtype.num) if shape is None else (_ARRAY, dtype.num, len(shape), *shape)


def _fits(numbers: Any) -> bool:
    return bool(np.all((numbers <= _LARGEST_INT) & (numbers >= -_LARGEST_INT)))


@lru_cache(maxsize=1024)
def _reader(codes: tuple[float, ...]) -> Callable[[list[float]], Any]:
    """Makes a tree of its values. Compiled once, because it runs at every step."""
    return _compile(iter(map(int, codes)))[1]


def _compile(codes: Iterator[int]) -> tuple[int, Callable[[list[float]], Any]]:
    """The number of values, and the reader."""
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
    return array if dtype.num == _FLOAT64 else _typed(array, dtype)


def _scalar(dtype: np.dtype, values: list[float]) -> Any:
    number = np.float64(values[0])
    return number if dtype.num == _FLOAT64 else _typed(number, dtype)


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


def _typed(numbers: Any, dtype: np.dtype) -> Any:
    if dtype.kind in "fb":
        return numbers.astype(dtype)
    with np.errstate(invalid="ignore"):
        typed = numbers.astype(dtype)
    return typed if np.array_equal(typed, numbers) else numbers


def _mark(codes: Iterator[int], found: list[bool]) -> None:
    code = next(codes)
    if code in (_ARRAY, _SCALAR):
        is_float = _DTYPES[next(codes)].kind == "f"
        size = math.prod(islice(codes, next(codes))) if code == _ARRAY else 1
        found += [is_float] * size
    elif code in (_TUPLE, _LIST):
        for _ in range(next(codes)):
            _mark(codes, found)
    elif code not in (_NONE, _ABSENT):
        found.append(code == _FLOAT)
