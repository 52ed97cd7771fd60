"""Which numbers of a flattened tree are floating-point numbers, found from its codes."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from pgtoolkit.envs.adapters.gymnasium import pytree_codes as node
from pgtoolkit.envs.adapters.gymnasium.pytree_codes import DTYPES


def are_floats(codes: tuple[int, ...]) -> list[bool]:
    """For each value of a flattened tree, whether it is a floating-point number."""
    found: list[bool] = []
    _append_is_float(iter(codes), found)
    return found


def first_are_floats(codes: Iterable[float]) -> list[bool]:
    """:func:`are_floats` of the first tree in codes that may be followed by padding."""
    found: list[bool] = []
    _append_is_float(iter(map(int, codes)), found)
    return found


def _append_is_float(codes: Iterator[int], found: list[bool]) -> None:
    """Appends the answers of :func:`are_floats` for the next node."""
    code = next(codes)
    if code in (node.ARRAY, node.SCALAR):
        is_float = DTYPES[next(codes)].kind == "f"
        size = math.prod(islice(codes, next(codes))) if code == node.ARRAY else 1
        found += [is_float] * size
    elif code in _NUM_FALSE:
        found += [False] * _NUM_FALSE[code]
    elif code in _NUM_TRUE:
        found += [True] * _NUM_TRUE[code]
    elif code in (node.BIG_INT, node.BYTES):
        found += [False] * (next(codes) + (code == node.BIG_INT))
    elif code in (node.RAW_SCALAR, node.RAW_ARRAY):
        found += [False] * list(islice(codes, 2))[1]
        list(islice(codes, next(codes) if code == node.RAW_ARRAY else 0))
    elif code in (node.NAME, node.KNOWN, node.SAME):
        next(codes)
    elif code in _NUM_HEADER:
        list(islice(codes, _NUM_HEADER[code]))
        _append_items_are_floats(_NUM_BRANCHES.get(code, 1), codes, found)
    elif code == node.VIEW:
        list(islice(codes, 2 * list(islice(codes, 3))[2]))
        _append_is_float(codes, found)
    elif code == node.OBJECT_ARRAY:
        _append_items_are_floats(math.prod(islice(codes, next(codes))), codes, found)
    else:
        if code in (node.DEQUE, node.NAMED_TUPLE):
            next(codes)
        count = next(codes) * (2 if code == node.DICT else 1)
        _append_items_are_floats(count, codes, found)


def _append_items_are_floats(count: int, codes: Iterator[int], found: list[bool]) -> None:
    done = 0
    while done < count:
        code = next(codes)
        if code in (node.FLOATS, node.INTS):
            run = next(codes)
            found += [code == node.FLOATS] * run
            done += run
        else:
            _append_is_float(chain((code,), codes), found)
            done += 1


_NUM_FALSE = {node.NONE: 0, node.ABSENT_VALUE: 0, node.BOOL: 1, node.INT: 1, node.PCG64: 10}
_NUM_TRUE = {node.FLOAT: 1, node.COMPLEX: 2}
_NUM_HEADER = {node.TENSOR: 1, node.FORTRAN: 0, node.OBJECT: 1, node.METHOD: 0, node.REDUCED: 0}
_NUM_BRANCHES = {node.METHOD: 2, node.REDUCED: 5}
