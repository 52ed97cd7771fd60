"""Converts trees of Python values to flat lists of numbers and back, exactly.

The types are stored too, because they affect results: ``float32 + float`` is rounded to single
precision. Numbers keep their place in the list while the shape of the tree stays, so that a number
can be moved. What is not a number, such as a text or a class, is kept by :class:`KnownObjects`, and
the codes name it.
"""

import ast
import math
import random
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
import torch

from pgtoolkit.envs.adapters.gymnasium.known_objects import (
    KnownObjects,
    UnheldError,
    attributes_of,
    fill,
    has_own_state,
    is_importable,
    new_object,
    pcg64_words,
    reduced,
    set_attributes,
    treatment_of,
)

UNSAVED = 0
"""The code of a place whose content is not in a saved state. It is 0, as padding is."""

_NONE, _BOOL, _INT, _FLOAT, _COMPLEX, _BIG_INT, _NAME, _ABSENT = range(1, 9)
_SCALAR, _ARRAY, _RAW_SCALAR, _RAW_ARRAY, _OBJECT_ARRAY, _TENSOR = range(9, 15)
_TUPLE, _LIST, _DICT, _SET, _FROZENSET, _DEQUE, _NAMED_TUPLE = range(15, 22)
_OBJECT, _METHOD, _REDUCED, _PCG64, _KNOWN, _SAME, _FLOATS, _INTS, _BYTES = range(22, 31)
_VIEW, _FORTRAN = range(31, 33)
"""Codes of the kinds of nodes."""

_DTYPES: dict[int, np.dtype] = {np.dtype(kind).num: np.dtype(kind) for kind in "?bhilqBHILQefd"}
"""The dtypes whose numbers are stored as they are, by NumPy's number of the dtype."""

_FLOAT64_NUM = np.dtype(np.float64).num

_INT64_NUMS = {num for num, dtype in _DTYPES.items() if dtype.kind in "iu" and dtype.itemsize == 8}
"""Numbers of the dtypes some of whose integers a float64 cannot hold exactly."""

_MAX_EXACT_INT = 2**53
"""Up to this size a float64 holds every integer exactly."""

_TENSOR_DTYPES = (
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.bool,
    torch.uint8,
    torch.int16,
    torch.int8,
    torch.float16,
)


@final
class Absent:
    """The type of :data:`ABSENT`."""

    def __deepcopy__(self, memo: Any) -> "Absent":
        return self

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT = Absent()
"""Stands for an attribute that does not exist at the moment."""


class Numbers(NamedTuple):
    """A flattened tree."""

    codes: tuple[int, ...]
    """Types and shapes of the tree's nodes."""
    values: list[float]
    """The tree's numbers, in the order of the nodes."""


@final
class Writer:
    """Flattens several trees; what they share is stored once.

    Args:
        known: the objects that are named instead of stored.
    """

    def __init__(self, known: KnownObjects) -> None:
        self.known = known
        self.codes: list[int] = []
        self.values: list[float] = []
        self._met: dict[int, int] = {}
        self._memory: set[int] = set()
        # Temporary objects stay, so that their addresses are not used again.
        self._kept: list[Any] = []

    def take(self) -> tuple[list[int], list[float]]:
        """The codes and values since the last call."""
        found = self.codes, self.values
        self.codes, self.values = [], []
        return found

    def put(self, tree: Any) -> None:
        """Appends a tree.

        Raises:
            UnheldError: it contains something that cannot be saved.
        """
        write = _WRITERS.get(type(tree))
        if write is not None:
            write(self, tree)
        elif not self._reference(tree):
            _put_other(self, tree)

    def put_content(self, tree: Any) -> None:
        """Appends the content of a known container, array or generator."""
        _CONTENT_WRITERS[_content_kind(tree)](self, tree)

    def _reference(self, tree: Any) -> bool:
        """Appends a reference if the object is known or was met before."""
        number = self.known.number(tree)
        if number is not None:
            self.codes += (_KNOWN, number)
            return True
        met = self._met.get(id(tree))
        if met is not None:
            self.codes += (_SAME, met)
            return True
        return False

    def own_memory(self, tree: Any, base: Any) -> None:
        """Notes that an array is stored by itself.

        Raises:
            UnheldError: another array in the same memory is stored by itself too.
        """
        if id(base) in self._memory:
            raise UnheldError(tree)
        self._memory.add(id(base))
        self._kept.append(base)

    def meet(self, tree: Any) -> None:
        """Numbers an object, for later references."""
        self._met[id(tree)] = len(self._met)
        self._kept.append(tree)


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


def flatten(tree: Any, known: KnownObjects | None = None) -> Numbers | None:
    """Flattens one tree; None if it contains something that cannot be saved."""
    writer = Writer(known or KnownObjects())
    try:
        writer.put(tree)
    except UnheldError:
        return None
    return Numbers(tuple(writer.codes), writer.values)


def unflatten(codes: tuple[float, ...], values: list[float], reading: Reading | None = None) -> Any:
    """Rebuilds the tree. Codes and values may be followed by padding.

    An integer whose value was changed to a fraction is returned as a floating-point number.
    """
    return _compiled_reader(codes)(values, reading or new_reading(KnownObjects()))


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


def _put_none(writer: Writer, tree: None) -> None:
    writer.codes.append(_NONE)


def _put_bool(writer: Writer, tree: bool) -> None:
    writer.codes.append(_BOOL)
    writer.values.append(tree)


def _put_int(writer: Writer, tree: int) -> None:
    if -_MAX_EXACT_INT <= tree <= _MAX_EXACT_INT:
        writer.codes.append(_INT)
        writer.values.append(tree)
        return
    size = abs(tree)
    words = [(size >> shift) & 0xFFFFFFFF for shift in range(0, size.bit_length(), 32)]
    writer.codes += (_BIG_INT, len(words))
    writer.values += (-1.0 if tree < 0 else 1.0, *words)


def _put_float(writer: Writer, tree: float) -> None:
    writer.codes.append(_FLOAT)
    writer.values.append(tree)


def _put_complex(writer: Writer, tree: complex) -> None:
    writer.codes.append(_COMPLEX)
    writer.values += (tree.real, tree.imag)


def _put_text(writer: Writer, tree: str) -> None:
    writer.codes += (_NAME, writer.known.text_code(tree))


def _put_bytes(writer: Writer, tree: bytes) -> None:
    writer.codes += (_BYTES, len(tree))
    writer.values += tree


def _put_absent(writer: Writer, tree: Absent) -> None:
    writer.codes.append(_ABSENT)


def _put_array(writer: Writer, tree: Any) -> None:
    if not writer._reference(tree):
        _put_array_content(writer, tree)


def _put_array_content(writer: Writer, tree: Any) -> None:
    if tree.ndim > 1 and tree.flags.f_contiguous and not tree.flags.c_contiguous:
        # The order in memory decides in which order NumPy adds.
        writer.codes.append(_FORTRAN)
        writer.meet(tree)
        _put_array_content(writer, tree.T.copy())
        return
    base = tree if tree.base is None else tree.base
    if type(base) is np.ndarray and base is not tree and _can_view(writer, tree, base):
        start = tree.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        writer.codes += (_VIEW, tree.dtype.num, start, tree.ndim, *tree.shape, *tree.strides)
        writer.put(base)
        writer.meet(tree)
        return
    if isinstance(base, np.ndarray):
        writer.own_memory(tree, base)
    writer.meet(tree)
    if tree.dtype == object:
        writer.codes += (_OBJECT_ARRAY, tree.ndim, *tree.shape)
        for item in tree.ravel().tolist():
            writer.put(item)
        return
    _put_numbers(writer, tree, _ARRAY, _RAW_ARRAY, (tree.ndim, *tree.shape))


def _can_view(writer: Writer, tree: Any, base: Any) -> bool:
    """Whether to store an array as a part of another: of a known one, or of one hardly larger."""
    if not (base.flags.c_contiguous and tree.dtype.num in _DTYPES and base.dtype.num in _DTYPES):
        return False
    return writer.known.number(base) is not None or base.size <= 4 * tree.size + 16


def _put_scalar(writer: Writer, tree: Any) -> None:
    _put_numbers(writer, tree, _SCALAR, _RAW_SCALAR, ())


def _put_numbers(writer: Writer, tree: Any, kind: int, raw: int, shape: tuple[int, ...]) -> None:
    """An array or a scalar: as numbers if float64 holds them exactly, else as bytes."""
    number = tree.dtype.num
    if number in _DTYPES and (number not in _INT64_NUMS or _are_exact_in_float64(tree)):
        writer.codes += (kind, number, *shape)
        writer.values += tree.ravel().tolist()
        return
    if tree.dtype.hasobject:
        raise UnheldError(tree)
    data = np.frombuffer(tree.tobytes(), np.uint8)
    text = writer.known.text_code(repr(np.lib.format.dtype_to_descr(tree.dtype)))
    writer.codes += (raw, text, len(data), *shape)
    writer.values += data.tolist()


def _put_tensor(writer: Writer, tree: torch.Tensor) -> None:
    if not writer._reference(tree):
        _put_tensor_content(writer, tree)


def _put_tensor_content(writer: Writer, tree: torch.Tensor) -> None:
    if tree.dtype not in _TENSOR_DTYPES or tree.device.type != "cpu" or not tree.is_leaf:
        raise UnheldError(tree)
    writer.meet(tree)
    writer.codes += (_TENSOR, int(tree.requires_grad))
    _put_numbers(
        writer, tree.detach().numpy(), _ARRAY, _RAW_ARRAY, (tree.dim(), *tuple(tree.shape))
    )


def _put_tuple(writer: Writer, tree: tuple[Any, ...]) -> None:
    writer.codes += (_TUPLE, len(tree))
    _put_items(writer, tree)


def _put_list(writer: Writer, tree: list[Any]) -> None:
    if not writer._reference(tree):
        _put_list_content(writer, tree)


def _put_list_content(writer: Writer, tree: list[Any]) -> None:
    writer.meet(tree)
    writer.codes += (_LIST, len(tree))
    _put_items(writer, tree)


def _put_deque(writer: Writer, tree: deque[Any]) -> None:
    if not writer._reference(tree):
        _put_deque_content(writer, tree)


def _put_deque_content(writer: Writer, tree: deque[Any]) -> None:
    writer.meet(tree)
    writer.codes += (_DEQUE, -1 if tree.maxlen is None else tree.maxlen, len(tree))
    _put_items(writer, tree)


def _put_set(writer: Writer, tree: set[Any]) -> None:
    if not writer._reference(tree):
        _put_set_content(writer, tree)


def _put_set_content(writer: Writer, tree: set[Any]) -> None:
    writer.meet(tree)
    writer.codes += (_SET, len(tree))
    _put_items(writer, tree)


def _put_frozenset(writer: Writer, tree: frozenset[Any]) -> None:
    writer.codes += (_FROZENSET, len(tree))
    _put_items(writer, tree)


def _put_dict(writer: Writer, tree: dict[Any, Any]) -> None:
    if not writer._reference(tree):
        _put_dict_content(writer, tree)


def _put_dict_content(writer: Writer, tree: dict[Any, Any]) -> None:
    writer.meet(tree)
    writer.codes += (_DICT, len(tree))
    for key, value in tree.items():
        writer.put(key)
        writer.put(value)


def _put_items(writer: Writer, items: Any) -> None:
    """The items of a container. A run of floats or of integers has one code for all."""
    kinds = set(map(type, items)) if len(items) > 3 else ()
    if kinds == {float}:
        writer.codes += (_FLOATS, len(items))
        writer.values += items
    elif kinds == {int} and max(items) <= _MAX_EXACT_INT and min(items) >= -_MAX_EXACT_INT:
        writer.codes += (_INTS, len(items))
        writer.values += items
    else:
        for item in items:
            writer.put(item)


def _put_generator(writer: Writer, tree: np.random.Generator) -> None:
    if not writer._reference(tree):
        _put_generator_content(writer, tree)


def _put_generator_content(writer: Writer, tree: np.random.Generator) -> None:
    bits = tree.bit_generator
    if type(bits) is not np.random.PCG64:
        _put_reduced(writer, tree)
        return
    writer.meet(tree)
    writer.codes.append(_PCG64)
    writer.values += pcg64_words(bits.state)


def _put_random(writer: Writer, tree: random.Random) -> None:
    if not writer._reference(tree):
        _put_reduced(writer, tree)


def _put_function(writer: Writer, tree: types.FunctionType) -> None:
    if not writer._reference(tree):
        if has_own_state(tree):
            raise UnheldError(tree)
        writer.codes += (_NAME, writer.known.thing_code(tree))


def _put_method(writer: Writer, tree: types.MethodType) -> None:
    writer.codes.append(_METHOD)
    writer.put(tree.__func__)
    writer.put(tree.__self__)


def _put_other(writer: Writer, tree: Any) -> None:
    """An object of any other class."""
    kind = type(tree)
    if isinstance(tree, np.generic):
        _put_scalar(writer, tree)
        return
    if isinstance(tree, tuple) and hasattr(kind, "_fields"):
        writer.codes += (_NAMED_TUPLE, writer.known.thing_code(kind), len(tree))
        _put_items(writer, tree)
        return
    treatment = treatment_of(kind)
    named = treatment == "name" and not _is_method_of_object(tree)
    if named or (callable(tree) and is_importable(tree)):
        writer.codes += (_NAME, writer.known.thing_code(tree))
    elif treatment == "attributes":
        writer.meet(tree)
        writer.codes += (_OBJECT, writer.known.thing_code(kind))
        _put_dict_content(writer, attributes_of(tree))
    elif treatment == "opaque":
        raise UnheldError(tree)
    else:
        _put_reduced(writer, tree)


def _is_method_of_object(tree: Any) -> bool:
    """Whether it is a method in C of an object, such as ``[].append``."""
    owner = getattr(tree, "__self__", None)
    return isinstance(tree, types.BuiltinFunctionType) and not isinstance(
        owner, (type(None), types.ModuleType, type)
    )


def _put_reduced(writer: Writer, tree: Any) -> None:
    found = reduced(tree)
    if isinstance(found, str):
        writer.codes += (_NAME, writer.known.thing_code(tree))
        return
    function, arguments, state, items, pairs = found
    writer.codes.append(_REDUCED)
    writer.put(function)
    writer.put(arguments)
    writer.meet(tree)
    for part in (state, items, pairs):
        writer._kept.append(part)
        writer.put(part)


def _content_kind(tree: Any) -> type:
    return next(kind for kind in type(tree).__mro__ if kind in _CONTENT_WRITERS)


_CONTENT_WRITERS: dict[type, Callable[[Writer, Any], None]] = {
    list: _put_list_content,
    dict: _put_dict_content,
    set: _put_set_content,
    deque: _put_deque_content,
    np.ndarray: _put_array_content,
    torch.Tensor: _put_tensor_content,
    np.random.Generator: _put_generator_content,
    np.random.RandomState: _put_reduced,
    random.Random: _put_reduced,
}
"""Writers of the content of what is restored in place."""

_WRITERS: dict[type, Callable[[Writer, Any], None]] = {
    type(None): _put_none,
    bool: _put_bool,
    int: _put_int,
    float: _put_float,
    complex: _put_complex,
    str: _put_text,
    bytes: _put_bytes,
    Absent: _put_absent,
    np.ndarray: _put_array,
    torch.Tensor: _put_tensor,
    tuple: _put_tuple,
    list: _put_list,
    dict: _put_dict,
    set: _put_set,
    frozenset: _put_frozenset,
    deque: _put_deque,
    np.random.Generator: _put_generator,
    random.Random: _put_random,
    types.FunctionType: _put_function,
    types.MethodType: _put_method,
    **{dtype.type: _put_scalar for dtype in _DTYPES.values()},
}


def _are_exact_in_float64(integers: Any) -> bool:
    return bool(np.all((integers <= _MAX_EXACT_INT) & (integers >= -_MAX_EXACT_INT)))


@lru_cache(maxsize=4096)
def _compiled_reader(codes: tuple[float, ...]) -> Read:
    """A function from the values to the tree; cached, because it runs at every step."""
    return _compile(iter(map(int, codes)))[1]


def _compile(codes: Iterator[int]) -> tuple[int, Read]:
    """The number of values of the next node, and the function that rebuilds it from them."""
    code = next(codes)
    if code in _COMPILERS:
        return _COMPILERS[code](codes)
    return 1, {_FLOAT: _float, _INT: _int, _BOOL: _bool}[code]


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
    dtype = _DTYPES[next(codes)]

    def read(values: list[float], reading: Reading) -> Any:
        number = np.float64(values[0])
        return number if dtype.num == _FLOAT64_NUM else _cast_if_exact(number, dtype)

    return 1, read


def _compile_array(codes: Iterator[int]) -> tuple[int, Read]:
    size, read = _compile_bare_array(codes)
    return size, partial(_note_array, read)


def _compile_bare_array(codes: Iterator[int]) -> tuple[int, Read]:
    dtype = _DTYPES[next(codes)]
    shape = tuple(islice(codes, next(codes)))
    size = math.prod(shape)

    def read(values: list[float], reading: Reading) -> Any:
        array = _shaped(np.array(values[:size], dtype=np.float64), shape)
        return array if dtype.num == _FLOAT64_NUM else _cast_if_exact(array, dtype)

    return size, read


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
    bare = _compile_bare_array if kind == _ARRAY else _compile_bare_raw_array
    size, read = bare(codes)

    def whole(values: list[float], reading: Reading) -> torch.Tensor:
        tensor = torch.from_numpy(np.asarray(read(values, reading)))
        tensor.requires_grad_(requires_grad)
        reading.made.append(tensor)
        return tensor

    return size, whole


def _compile_view(codes: Iterator[int]) -> tuple[int, Read]:
    dtype, start = _DTYPES[next(codes)], next(codes)
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
        if code in (_FLOATS, _INTS):
            run = next(codes)
            branches.append((run, _int_run if code == _INTS else _float_run(run)))
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
    _NONE: partial(_constant, None),
    _ABSENT: partial(_constant, ABSENT),
    _COMPLEX: _compile_complex,
    _BIG_INT: _compile_big_int,
    _NAME: _compile_name,
    _BYTES: _compile_bytes,
    _KNOWN: _compile_known,
    _SAME: _compile_same,
    _SCALAR: _compile_scalar,
    _ARRAY: _compile_array,
    _RAW_SCALAR: _compile_raw_scalar,
    _RAW_ARRAY: _compile_raw_array,
    _OBJECT_ARRAY: _compile_object_array,
    _TENSOR: _compile_tensor,
    _VIEW: _compile_view,
    _FORTRAN: _compile_fortran,
    _TUPLE: _compile_tuple,
    _FROZENSET: _compile_frozenset,
    _NAMED_TUPLE: _compile_named_tuple,
    _LIST: _compile_list,
    _SET: _compile_set,
    _DEQUE: _compile_deque,
    _DICT: _compile_dict,
    _OBJECT: _compile_object,
    _METHOD: _compile_method,
    _REDUCED: _compile_reduced,
    _PCG64: _compile_pcg64,
}


def _append_is_float(codes: Iterator[int], found: list[bool]) -> None:
    """Appends the answers of :func:`are_floats` for the next node."""
    code = next(codes)
    if code in (_ARRAY, _SCALAR):
        is_float = _DTYPES[next(codes)].kind == "f"
        size = math.prod(islice(codes, next(codes))) if code == _ARRAY else 1
        found += [is_float] * size
    elif code in _NUM_FALSE:
        found += [False] * _NUM_FALSE[code]
    elif code in _NUM_TRUE:
        found += [True] * _NUM_TRUE[code]
    elif code in (_BIG_INT, _BYTES):
        found += [False] * (next(codes) + (code == _BIG_INT))
    elif code in (_RAW_SCALAR, _RAW_ARRAY):
        found += [False] * list(islice(codes, 2))[1]
        list(islice(codes, next(codes) if code == _RAW_ARRAY else 0))
    elif code in (_NAME, _KNOWN, _SAME):
        next(codes)
    elif code in _NUM_HEADER:
        list(islice(codes, _NUM_HEADER[code]))
        _append_items_are_floats(_NUM_BRANCHES.get(code, 1), codes, found)
    elif code == _VIEW:
        list(islice(codes, 2 * list(islice(codes, 3))[2]))
        _append_is_float(codes, found)
    elif code == _OBJECT_ARRAY:
        _append_items_are_floats(math.prod(islice(codes, next(codes))), codes, found)
    else:
        if code in (_DEQUE, _NAMED_TUPLE):
            next(codes)
        count = next(codes) * (2 if code == _DICT else 1)
        _append_items_are_floats(count, codes, found)


def _append_items_are_floats(count: int, codes: Iterator[int], found: list[bool]) -> None:
    done = 0
    while done < count:
        code = next(codes)
        if code in (_FLOATS, _INTS):
            run = next(codes)
            found += [code == _FLOATS] * run
            done += run
        else:
            _append_is_float(chain((code,), codes), found)
            done += 1


_NUM_FALSE = {_NONE: 0, _ABSENT: 0, _BOOL: 1, _INT: 1, _PCG64: 10}
_NUM_TRUE = {_FLOAT: 1, _COMPLEX: 2}
_NUM_HEADER = {_TENSOR: 1, _FORTRAN: 0, _OBJECT: 1, _METHOD: 0, _REDUCED: 0}
_NUM_BRANCHES = {_METHOD: 2, _REDUCED: 5}
