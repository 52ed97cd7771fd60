"""Rebuilds trees of Python values from the flat lists of numbers that the writer made."""

import ast
import math
import types
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from pgtoolkit.envs.adapters.gymnasium import pytree_codes as node
from pgtoolkit.envs.adapters.gymnasium.known_objects import (
    KnownObjects,
    fill,
    new_object,
    set_attributes,
)
from pgtoolkit.envs.adapters.gymnasium.pytree_codes import ABSENT, DTYPES, FLOAT64_NUM


class Reading(NamedTuple):
    """What the trees of one saved state are rebuilt with."""

    known: KnownObjects
    made: list[Any]
    """The objects rebuilt so far, in the order in which the writer met them."""
    generators: list[Any]
    """The random generators among them."""


def new_reading(known: KnownObjects) -> Reading:
    """A reading that has not begun."""
    return Reading(known, [], [])


Read: TypeAlias = Callable[[list[float], Reading], Any]


def unflatten(codes: tuple[float, ...], values: list[float], reading: Reading | None = None) -> Any:
    """Rebuilds the tree. Codes and values may be followed by padding.

    An integer whose value was changed to a fraction is returned as a floating-point number.
    """
    return compiled_reader(codes)(values, reading or new_reading(KnownObjects()))


@lru_cache(maxsize=4096)
def compiled_reader(codes: tuple[float, ...]) -> Read:
    """A function from the values to the tree; cached, because it runs at every step."""
    return _compile(iter(map(int, codes)))[1]


def _compile(codes: Iterator[int]) -> tuple[int, Read]:
    """The number of values of the next node, and the function that rebuilds it from them."""
    code = next(codes)
    if code in _COMPILERS:
        return _COMPILERS[code](codes)
    return 1, {node.FLOAT: _float, node.INT: _int, node.BOOL: _bool}[code]


def _float(values: list[float], reading: Reading) -> float:
    return float(values[0])


def _int(values: list[float], reading: Reading) -> float:
    number = float(values[0])
    return int(number) if number.is_integer() else number


def _bool(values: list[float], reading: Reading) -> bool:
    return bool(values[0])


def _constant(value: Any, codes: Iterator[int]) -> tuple[int, Read]:
    return 0, lambda values, reading: value


def _compile_complex(codes: Iterator[int]) -> tuple[int, Read]:
    return 2, lambda values, reading: complex(values[0], values[1])


def _compile_big_int(codes: Iterator[int]) -> tuple[int, Read]:
    size = next(codes)

    def read(values: list[float], reading: Reading) -> int:
        words = enumerate(values[1 : size + 1])
        return int(values[0]) * sum(int(word) << (32 * k) for k, word in words)

    return size + 1, read


def _compile_name(codes: Iterator[int]) -> tuple[int, Read]:
    code = next(codes)
    return 0, lambda values, reading: reading.known.named(code)


def _compile_bytes(codes: Iterator[int]) -> tuple[int, Read]:
    size = next(codes)
    return size, lambda values, reading: bytes(map(int, values[:size]))


def _compile_known(codes: Iterator[int]) -> tuple[int, Read]:
    number = next(codes)
    return 0, lambda values, reading: reading.known.objects[number]


def _compile_same(codes: Iterator[int]) -> tuple[int, Read]:
    number = next(codes)
    return 0, lambda values, reading: reading.made[number]


def _compile_scalar(codes: Iterator[int]) -> tuple[int, Read]:
    dtype = DTYPES[next(codes)]

    def read(values: list[float], reading: Reading) -> Any:
        number = np.float64(values[0])
        return number if dtype.num == FLOAT64_NUM else _cast_if_exact(number, dtype)

    return 1, read


def _compile_array(codes: Iterator[int]) -> tuple[int, Read]:
    size, read = _compile_bare_array(codes)
    return size, partial(_note_array, read)


def _compile_bare_array(codes: Iterator[int]) -> tuple[int, Read]:
    dtype = DTYPES[next(codes)]
    shape = tuple(islice(codes, next(codes)))
    size = math.prod(shape)

    def read(values: list[float], reading: Reading) -> Any:
        array = np.array(values[:size], dtype=np.float64)
        return array if len(shape) == 1 else _shaped(array, shape)

    if dtype.num == FLOAT64_NUM:
        return size, read
    return size, lambda values, reading: _cast_if_exact(read(values, reading), dtype)


def _note_array(read: Read, values: list[float], reading: Reading) -> Any:
    array = read(values, reading)
    reading.made.append(array)
    return array


def _compile_raw(codes: Iterator[int]) -> tuple[int, Any, int]:
    """The code of the dtype, a reader of the bytes, and their number."""
    text, size = next(codes), next(codes)

    def read(values: list[float], reading: Reading) -> Any:
        described = ast.literal_eval(reading.known.named(text))
        dtype = np.lib.format.descr_to_dtype(described)
        return np.frombuffer(np.array(values[:size]).astype(np.uint8).tobytes(), dtype).copy()

    return size, read, text


def _compile_raw_scalar(codes: Iterator[int]) -> tuple[int, Read]:
    size, read, _ = _compile_raw(codes)
    return size, lambda values, reading: read(values, reading)[0]


def _compile_raw_array(codes: Iterator[int]) -> tuple[int, Read]:
    size, read = _compile_bare_raw_array(codes)
    return size, partial(_note_array, read)


def _compile_bare_raw_array(codes: Iterator[int]) -> tuple[int, Read]:
    size, read, _ = _compile_raw(codes)
    shape = tuple(islice(codes, next(codes)))
    return size, lambda values, reading: _shaped(read(values, reading), shape)


def _shaped(array: Any, shape: tuple[int, ...]) -> Any:
    """The array in another shape, with memory of its own."""
    return array if array.shape == shape else array.reshape(shape).copy()


def _compile_object_array(codes: Iterator[int]) -> tuple[int, Read]:
    shape = tuple(islice(codes, next(codes)))
    size, read = _compile_items(math.prod(shape), codes)

    def whole(values: list[float], reading: Reading) -> Any:
        array = np.empty(shape, dtype=object)
        reading.made.append(array)
        array.ravel()[:] = [None] * array.size
        flat = array.reshape(-1)
        for index, item in enumerate(read(values, reading)):
            flat[index] = item
        return array

    return size, whole


def _compile_tensor(codes: Iterator[int]) -> tuple[int, Read]:
    requires_grad = bool(next(codes))
    kind = next(codes)
    bare = _compile_bare_array if kind == node.ARRAY else _compile_bare_raw_array
    size, read = bare(codes)

    def whole(values: list[float], reading: Reading) -> torch.Tensor:
        tensor = torch.from_numpy(np.asarray(read(values, reading)))
        tensor.requires_grad_(requires_grad)
        reading.made.append(tensor)
        return tensor

    return size, whole


def _compile_view(codes: Iterator[int]) -> tuple[int, Read]:
    dtype, start = DTYPES[next(codes)], next(codes)
    axes = next(codes)
    shape, strides = tuple(islice(codes, axes)), tuple(islice(codes, axes))
    size, read = _compile(codes)

    def whole(values: list[float], reading: Reading) -> Any:
        base = read(values, reading)
        # A base of integers that was moved holds floating-point numbers.
        kind = dtype if base.dtype.itemsize == dtype.itemsize and dtype.kind == "f" else base.dtype
        kind = dtype if base.dtype.itemsize != dtype.itemsize else kind
        array: Any = np.ndarray(shape, kind, base, start, strides)
        reading.made.append(array)
        return array

    return size, whole


def _compile_fortran(codes: Iterator[int]) -> tuple[int, Read]:
    size, read = _compile(codes)

    def whole(values: list[float], reading: Reading) -> Any:
        place = len(reading.made)
        reading.made.append(None)
        reading.made[place] = array = read(values, reading).T
        return array

    return size, whole


def _compile_items(count: int, codes: Iterator[int]) -> tuple[int, Read]:
    """Reads ``count`` items as a list."""
    branches: list[tuple[int, Read]] = []
    found = 0
    while found < count:
        code = next(codes)
        if code in (node.FLOATS, node.INTS):
            run = next(codes)
            branches.append((run, _int_run if code == node.INTS else _float_run(run)))
            found += run
        else:
            size, read = _compile(chain((code,), codes))
            branches.append((size, partial(_single, read)))
            found += 1

    def whole(values: list[float], reading: Reading) -> list[Any]:
        start, items = 0, []
        for size, read in branches:
            items += read(values[start : start + size], reading)
            start += size
        return items

    return sum(size for size, _ in branches), whole


def _single(read: Read, values: list[float], reading: Reading) -> list[Any]:
    return [read(values, reading)]


def _float_run(run: int) -> Read:
    return lambda values, reading: [float(value) for value in values[:run]]


def _int_run(values: list[float], reading: Reading) -> list[Any]:
    return [int(value) if float(value).is_integer() else value for value in values]


def _compile_tuple(codes: Iterator[int]) -> tuple[int, Read]:
    size, read = _compile_items(next(codes), codes)
    return size, lambda values, reading: tuple(read(values, reading))


def _compile_frozenset(codes: Iterator[int]) -> tuple[int, Read]:
    size, read = _compile_items(next(codes), codes)
    return size, lambda values, reading: frozenset(read(values, reading))


def _compile_named_tuple(codes: Iterator[int]) -> tuple[int, Read]:
    code = next(codes)
    size, read = _compile_items(next(codes), codes)

    def whole(values: list[float], reading: Reading) -> Any:
        kind = reading.known.named(code)
        return tuple.__new__(kind, read(values, reading))

    return size, whole


def _compile_list(codes: Iterator[int]) -> tuple[int, Read]:
    size, read = _compile_items(next(codes), codes)
    return size, partial(_read_into, list, list.extend, read)


def _compile_set(codes: Iterator[int]) -> tuple[int, Read]:
    size, read = _compile_items(next(codes), codes)
    return size, partial(_read_into, set, set.update, read)


def _compile_deque(codes: Iterator[int]) -> tuple[int, Read]:
    longest = next(codes)
    size, read = _compile_items(next(codes), codes)
    make: Any = partial(deque, maxlen=None if longest < 0 else longest)
    return size, partial(_read_into, make, deque.extend, read)


def _read_into(make: Any, extend: Any, read: Read, values: list[float], reading: Reading) -> Any:
    """Makes a container before its items, because these may refer to it."""
    container = make()
    reading.made.append(container)
    extend(container, read(values, reading))
    return container


def _compile_dict(codes: Iterator[int]) -> tuple[int, Read]:
    size, read = _compile_items(2 * next(codes), codes)

    def whole(values: list[float], reading: Reading) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        reading.made.append(found)
        items = read(values, reading)
        found.update(zip(items[::2], items[1::2], strict=True))
        return found

    return size, whole


def _compile_object(codes: Iterator[int]) -> tuple[int, Read]:
    code = next(codes)
    size, read = _compile(codes)

    def whole(values: list[float], reading: Reading) -> Any:
        made = new_object(reading.known.named(code))
        reading.made.append(made)
        set_attributes(made, read(values, reading))
        return made

    return size, whole


def _compile_method(codes: Iterator[int]) -> tuple[int, Read]:
    size, read = _compile_items(2, codes)
    return size, lambda values, reading: types.MethodType(*read(values, reading))


def _compile_reduced(codes: Iterator[int]) -> tuple[int, Read]:
    made_of = _compile_items(2, codes)
    filled_with = _compile_items(3, codes)

    def whole(values: list[float], reading: Reading) -> Any:
        function, arguments = made_of[1](values[: made_of[0]], reading)
        made = function(*arguments)
        reading.made.append(made)
        fill(made, *filled_with[1](values[made_of[0] :], reading))
        return made

    return made_of[0] + filled_with[0], whole


def _compile_pcg64(codes: Iterator[int]) -> tuple[int, Read]:
    def read(values: list[float], reading: Reading) -> np.random.Generator:
        generator = reading.known.generator(values[:10], len(reading.generators))
        reading.generators.append(generator)
        reading.made.append(generator)
        return generator

    return 10, read


def _cast_if_exact(numbers: Any, dtype: np.dtype) -> Any:
    """Casts to the dtype, but leaves float64 numbers that an integer dtype cannot hold."""
    if dtype.kind in "fb":
        return numbers.astype(dtype)
    with np.errstate(invalid="ignore"):
        cast = numbers.astype(dtype)
    return cast if np.array_equal(cast, numbers) else numbers


_COMPILERS: dict[int, Callable[[Iterator[int]], tuple[int, Read]]] = {
    node.NONE: partial(_constant, None),
    node.ABSENT_VALUE: partial(_constant, ABSENT),
    node.COMPLEX: _compile_complex,
    node.BIG_INT: _compile_big_int,
    node.NAME: _compile_name,
    node.BYTES: _compile_bytes,
    node.KNOWN: _compile_known,
    node.SAME: _compile_same,
    node.SCALAR: _compile_scalar,
    node.ARRAY: _compile_array,
    node.RAW_SCALAR: _compile_raw_scalar,
    node.RAW_ARRAY: _compile_raw_array,
    node.OBJECT_ARRAY: _compile_object_array,
    node.TENSOR: _compile_tensor,
    node.VIEW: _compile_view,
    node.FORTRAN: _compile_fortran,
    node.TUPLE: _compile_tuple,
    node.FROZENSET: _compile_frozenset,
    node.NAMED_TUPLE: _compile_named_tuple,
    node.LIST: _compile_list,
    node.SET: _compile_set,
    node.DEQUE: _compile_deque,
    node.DICT: _compile_dict,
    node.OBJECT: _compile_object,
    node.METHOD: _compile_method,
    node.REDUCED: _compile_reduced,
    node.PCG64: _compile_pcg64,
}
