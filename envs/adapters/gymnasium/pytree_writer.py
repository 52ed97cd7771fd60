"""Writes trees of Python values as flat lists of numbers, exactly."""

import random
import types
from collections import deque
from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch

from pgtoolkit.envs.adapters.gymnasium import pytree_codes as node
from pgtoolkit.envs.adapters.gymnasium.known_objects import (
    KnownObjects,
    UnheldError,
    attributes_of,
    has_own_state,
    is_importable,
    pcg64_words,
    reduced,
    treatment_of,
)
from pgtoolkit.envs.adapters.gymnasium.pytree_codes import DTYPES, Absent, Numbers

_INT64_NUMS = {num for num, dtype in DTYPES.items() if dtype.kind in "iu" and dtype.itemsize == 8}
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
class Writer:
    """Flattens several trees; what they share is stored once.

    Args:
        known: the objects that are named instead of stored.
    """

    def __init__(self, known: KnownObjects) -> None:
        self.known, self._numbers = known, known.numbers
        self.codes: list[int] = []
        self.values: list[float] = []
        self._met: dict[int, int] = {}
        self._memory: set[int] = set()
        # Temporary objects stay, so that their addresses are not used again.
        self._kept: list[Any] = []

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
        key = id(tree)
        number = self._numbers.get(key)
        if number is not None:
            self.codes += (node.KNOWN, number)
            return True
        met = self._met.get(key)
        if met is not None:
            self.codes += (node.SAME, met)
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
        if base is not tree:
            self._kept.append(base)

    def meet(self, tree: Any) -> None:
        """Numbers an object, for later references."""
        self._met[id(tree)] = len(self._met)
        self._kept.append(tree)


def flatten(tree: Any, known: KnownObjects | None = None) -> Numbers | None:
    """Flattens one tree; None if it contains something that cannot be saved."""
    writer = Writer(known or KnownObjects())
    try:
        writer.put(tree)
    except UnheldError:
        return None
    return Numbers(tuple(writer.codes), writer.values)


def _put_none(writer: Writer, tree: None) -> None:
    writer.codes.append(node.NONE)


def _put_bool(writer: Writer, tree: bool) -> None:
    writer.codes.append(node.BOOL)
    writer.values.append(tree)


def _put_int(writer: Writer, tree: int) -> None:
    if -_MAX_EXACT_INT <= tree <= _MAX_EXACT_INT:
        writer.codes.append(node.INT)
        writer.values.append(tree)
        return
    size = abs(tree)
    words = [(size >> shift) & 0xFFFFFFFF for shift in range(0, size.bit_length(), 32)]
    writer.codes += (node.BIG_INT, len(words))
    writer.values += (-1.0 if tree < 0 else 1.0, *words)


def _put_float(writer: Writer, tree: float) -> None:
    writer.codes.append(node.FLOAT)
    writer.values.append(tree)


def _put_complex(writer: Writer, tree: complex) -> None:
    writer.codes.append(node.COMPLEX)
    writer.values += (tree.real, tree.imag)


def _put_text(writer: Writer, tree: str) -> None:
    writer.codes += (node.NAME, writer.known.text_code(tree))


def _put_bytes(writer: Writer, tree: bytes) -> None:
    writer.codes += (node.BYTES, len(tree))
    writer.values += tree


def _put_absent(writer: Writer, tree: Absent) -> None:
    writer.codes.append(node.ABSENT_VALUE)


def _put_array(writer: Writer, tree: Any) -> None:
    if not writer._reference(tree):
        _put_array_content(writer, tree)


def _put_array_content(writer: Writer, tree: Any) -> None:
    if tree.ndim > 1 and tree.flags.f_contiguous and not tree.flags.c_contiguous:
        # The order in memory decides in which order NumPy adds.
        writer.codes.append(node.FORTRAN)
        writer.meet(tree)
        _put_array_content(writer, tree.T.copy())
        return
    base = tree if tree.base is None else tree.base
    if base is not tree and type(base) is np.ndarray and _can_view(writer, tree, base):
        start = tree.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        writer.codes += (node.VIEW, tree.dtype.num, start, tree.ndim, *tree.shape, *tree.strides)
        writer.put(base)
        writer.meet(tree)
        return
    if base is tree or isinstance(base, np.ndarray):
        writer.own_memory(tree, base)
    writer.meet(tree)
    if tree.dtype.kind == "O":
        writer.codes += (node.OBJECT_ARRAY, tree.ndim, *tree.shape)
        for item in tree.ravel().tolist():
            writer.put(item)
        return
    _put_numbers(writer, tree, node.ARRAY, node.RAW_ARRAY, (tree.ndim, *tree.shape))


def _can_view(writer: Writer, tree: Any, base: Any) -> bool:
    """Whether to store an array as a part of another: of a known one, or of one hardly larger."""
    if not (base.flags.c_contiguous and tree.dtype.num in DTYPES and base.dtype.num in DTYPES):
        return False
    return writer.known.number(base) is not None or base.size <= 4 * tree.size + 16


def _put_scalar(writer: Writer, tree: Any) -> None:
    _put_numbers(writer, tree, node.SCALAR, node.RAW_SCALAR, ())


def _put_numbers(writer: Writer, tree: Any, kind: int, raw: int, shape: tuple[int, ...]) -> None:
    """An array or a scalar: as numbers if float64 holds them exactly, else as bytes."""
    number = tree.dtype.num
    if number in DTYPES and (number not in _INT64_NUMS or _are_exact_in_float64(tree)):
        writer.codes += (kind, number, *shape)
        writer.values += tree.tolist() if len(shape) == 2 else tree.ravel().tolist()
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
    writer.codes += (node.TENSOR, int(tree.requires_grad))
    _put_numbers(
        writer, tree.detach().numpy(), node.ARRAY, node.RAW_ARRAY, (tree.dim(), *tuple(tree.shape))
    )


def _put_tuple(writer: Writer, tree: tuple[Any, ...]) -> None:
    writer.codes += (node.TUPLE, len(tree))
    _put_items(writer, tree)


def _put_list(writer: Writer, tree: list[Any]) -> None:
    if not writer._reference(tree):
        _put_list_content(writer, tree)


def _put_list_content(writer: Writer, tree: list[Any]) -> None:
    writer.meet(tree)
    writer.codes += (node.LIST, len(tree))
    _put_items(writer, tree)


def _put_deque(writer: Writer, tree: deque[Any]) -> None:
    if not writer._reference(tree):
        _put_deque_content(writer, tree)


def _put_deque_content(writer: Writer, tree: deque[Any]) -> None:
    writer.meet(tree)
    writer.codes += (node.DEQUE, -1 if tree.maxlen is None else tree.maxlen, len(tree))
    _put_items(writer, tree)


def _put_set(writer: Writer, tree: set[Any]) -> None:
    if not writer._reference(tree):
        _put_set_content(writer, tree)


def _put_set_content(writer: Writer, tree: set[Any]) -> None:
    writer.meet(tree)
    writer.codes += (node.SET, len(tree))
    _put_items(writer, tree)


def _put_frozenset(writer: Writer, tree: frozenset[Any]) -> None:
    writer.codes += (node.FROZENSET, len(tree))
    _put_items(writer, tree)


def _put_dict(writer: Writer, tree: dict[Any, Any]) -> None:
    if not writer._reference(tree):
        _put_dict_content(writer, tree)


def _put_dict_content(writer: Writer, tree: dict[Any, Any]) -> None:
    writer.meet(tree)
    writer.codes += (node.DICT, len(tree))
    for key, value in tree.items():
        writer.put(key)
        writer.put(value)


def _put_items(writer: Writer, items: Any) -> None:
    """The items of a container. A run of floats or of integers has one code for all."""
    kinds = set(map(type, items)) if len(items) > 3 else ()
    if kinds == {float}:
        writer.codes += (node.FLOATS, len(items))
        writer.values += items
    elif kinds == {int} and max(items) <= _MAX_EXACT_INT and min(items) >= -_MAX_EXACT_INT:
        writer.codes += (node.INTS, len(items))
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
    writer.codes.append(node.PCG64)
    writer.values += pcg64_words(bits.state)


def _put_random(writer: Writer, tree: random.Random) -> None:
    if not writer._reference(tree):
        _put_reduced(writer, tree)


def _put_function(writer: Writer, tree: types.FunctionType) -> None:
    if not writer._reference(tree):
        if has_own_state(tree):
            raise UnheldError(tree)
        writer.codes += (node.NAME, writer.known.thing_code(tree))


def _put_method(writer: Writer, tree: types.MethodType) -> None:
    writer.codes.append(node.METHOD)
    writer.put(tree.__func__)
    writer.put(tree.__self__)


def _put_other(writer: Writer, tree: Any) -> None:
    """An object of any other class."""
    kind = type(tree)
    if isinstance(tree, np.generic):
        _put_scalar(writer, tree)
        return
    if isinstance(tree, tuple) and hasattr(kind, "_fields"):
        writer.codes += (node.NAMED_TUPLE, writer.known.thing_code(kind), len(tree))
        _put_items(writer, tree)
        return
    treatment = treatment_of(kind)
    named = treatment == "name" and not _is_method_of_object(tree)
    if named or (callable(tree) and is_importable(tree)):
        writer.codes += (node.NAME, writer.known.thing_code(tree))
    elif treatment == "attributes":
        writer.meet(tree)
        writer.codes += (node.OBJECT, writer.known.thing_code(kind))
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
        writer.codes += (node.NAME, writer.known.thing_code(tree))
        return
    function, arguments, state, items, pairs = found
    writer.codes.append(node.REDUCED)
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
    **{dtype.type: _put_scalar for dtype in DTYPES.values()},
}


def _are_exact_in_float64(integers: Any) -> bool:
    return bool(np.all((integers <= _MAX_EXACT_INT) & (integers >= -_MAX_EXACT_INT)))
