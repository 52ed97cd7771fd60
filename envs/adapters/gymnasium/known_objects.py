"""How objects are saved: by value, by their attributes, by Python's copy protocol, or not at all.

What is the same for all saved states is not stored in them but named: classes and texts by a hash
of their name, and objects that the environment keeps, by their number.
"""

import copyreg
import enum
import hashlib
import io
import sys
import types
import typing
import weakref
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch

from pgtoolkit.errors import RequestError

Treatment: TypeAlias = Literal["name", "attributes", "reduce", "opaque"]
"""``name``: never changes; ``attributes``: a plain Python object; ``reduce``: by the copy protocol;
``opaque``: has a state that Python cannot reach."""

COPYABLE_MODULES = {
    "array",
    "builtins",
    "collections",
    "datetime",
    "decimal",
    "fractions",
    "functools",
    "_functools",
    "itertools",
    "numpy",
    "pathlib",
    "random",
    "_random",
    "uuid",
}
"""Libraries whose objects are small values that the copy protocol saves."""

OPAQUE_MODULES = {
    "Box2D",
    "OpenGL",
    "PIL",
    "cv2",
    "glfw",
    "jax",
    "jaxlib",
    "matplotlib",
    "mujoco",
    "pandas",
    "polars",
    "pyarrow",
    "pygame",
    "tensorflow",
    "xarray",
}
"""Libraries whose objects hold caches or memory outside of Python. They are neither searched nor
saved."""

NAMED_TYPES = (
    type,
    enum.Enum,
    types.ModuleType,
    types.BuiltinFunctionType,
    np.dtype,
    np.ufunc,
    torch.dtype,
    torch.device,
    type(Ellipsis),
    type(NotImplemented),
)

OPAQUE_TYPES = (
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    io.RawIOBase,
    io.BufferedIOBase,
    io.TextIOBase,
)


class UnheldError(Exception):
    """An object cannot be saved. Attribute ``kind``: its type."""

    def __init__(self, value: object) -> None:
        super().__init__(type(value).__name__)
        self.kind = type(value).__name__


class _Reused:
    """A generator that is used again, with the last state that it was given."""

    def __init__(self) -> None:
        self.bits = np.random.PCG64(0)
        self.generator = np.random.Generator(self.bits)
        self.words: list[float] = []
        self.state: Any = None


@final
class KnownObjects:
    """Objects that saved states name instead of holding them."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        """Objects that the environment keeps, by their number."""
        self.numbers: dict[int, int] = {}
        """Their numbers, by address."""
        self.texts: dict[int, str] = {}
        self._things: dict[int, Any] = {}
        self._codes: dict[Any, int] = {}
        self._generators: list[_Reused] = []

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles have other addresses."""
        return vars(self) | {"numbers": {}, "_codes": {}, "_generators": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.numbers = {id(value): number for number, value in enumerate(self.objects)}

    @property
    def things(self) -> list[Any]:
        """What is named and never changes, such as classes."""
        return list(self._things.values())

    def add(self, value: Any) -> None:
        """Gives an object a number."""
        self.numbers[id(value)] = len(self.objects)
        self.objects.append(value)

    def number(self, value: Any) -> int | None:
        """The object's number; None if it has none."""
        return self.numbers.get(id(value))

    def text_code(self, text: str) -> int:
        """The code that names a text."""
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = _hash(text)
            self.texts[code] = text
        return code

    def thing_code(self, value: Any) -> int:
        """The code that names something that never changes, such as a class."""
        code = self._codes.get(id(value))
        if code is not None and self._things[code] is value:
            return code
        # All members of an enumeration, so that a resumed run knows those that come later.
        for member in type(value) if isinstance(value, enum.Enum) else (value,):
            self._codes[id(member)] = code = _hash(_name_of(member))
            self._things[code] = member
        return self._codes[id(value)]

    def named(self, code: int) -> Any:
        """The text or the thing with this code.

        Raises:
            RequestError: the code was made by another process, and this one has not seen it.
        """
        found = self.texts.get(code, self._things.get(code))
        if found is None:
            raise RequestError(
                "a saved state holds an object that this environment has not made yet, so the "
                "states of another run cannot be used here: start a new run"
            )
        return found

    def generator(self, words: list[float], number: int) -> np.random.Generator:
        """A generator in the given state of PCG64.

        The objects are used again, because making one is slow. Those of one saved state are
        different objects if their numbers are.
        """
        if number == len(self._generators):
            self._generators.append(_Reused())
        reused = self._generators[number]
        if reused.words != words:
            reused.words, reused.state = words, _pcg64_state(words)
        # Set although the words are the same: the environment may have drawn from it since.
        reused.bits.state = reused.state
        return reused.generator


def treatment_of(kind: type) -> Treatment:
    """How objects of a class are saved, unless they are numbers or containers."""
    found = _TREATMENTS.get(kind)
    if found is None:
        found = _TREATMENTS[kind] = _find_treatment(kind)
    return found


_TREATMENTS: weakref.WeakKeyDictionary[type, Treatment] = weakref.WeakKeyDictionary()


def _find_treatment(kind: type) -> Treatment:
    module = getattr(kind, "__module__", None)
    if not isinstance(module, str):
        return "opaque"
    root = module.split(".")[0]
    if issubclass(kind, NAMED_TYPES):
        return "name"
    if kind in (io.BytesIO, io.StringIO):
        return "reduce"
    if root in OPAQUE_MODULES or kind is object or issubclass(kind, OPAQUE_TYPES):
        return "opaque"
    if root in COPYABLE_MODULES:
        return "reduce"
    if root in sys.stdlib_module_names and root != "__main__":
        return "attributes" if kind is types.SimpleNamespace else "opaque"
    if not _is_python_class(kind):
        return "opaque"
    foreign = {base for base in kind.__mro__ if not _is_python_class(base)}
    return "attributes" if foreign <= {object, typing.Generic} else "reduce"


def is_importable(value: Any) -> bool:
    """Whether it is a function or a class of a module, found there by its name."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    name = getattr(value, "__qualname__", None)
    return isinstance(name, str) and getattr(module, name, None) is value


def slot_names(kind: type) -> list[str]:
    """The names in ``__slots__`` of a class and its bases."""
    found: list[str] = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else tuple(slots)
        for name in names:
            if name not in ("__dict__", "__weakref__"):
                hidden = name.startswith("__") and not name.endswith("__")
                found.append(f"_{base.__name__.lstrip('_')}{name}" if hidden else name)
    return found


def attributes_of(value: Any) -> dict[str, Any]:
    """All attributes of a plain object, those in slots too."""
    found = dict(getattr(value, "__dict__", {}))
    for name in slot_names(type(value)):
        try:
            found[name] = getattr(value, name)
        except AttributeError:
            continue
    return found


def new_object(kind: type) -> Any:
    """An object of a class without attributes; ``__init__`` is not called."""
    return object.__new__(kind)


def set_attributes(value: Any, attributes: dict[str, Any]) -> None:
    """Sets the attributes of a new object, past any ``__setattr__`` of its own."""
    own = getattr(value, "__dict__", None)
    slots = set(slot_names(type(value)))
    for name, attribute in attributes.items():
        if own is not None and name not in slots:
            own[name] = attribute
        else:
            object.__setattr__(value, name, attribute)


def reduced(value: Any) -> tuple[Any, ...] | str:
    """What Python's copy protocol says of an object.

    Raises:
        UnheldError: it says that the object cannot be copied.
    """
    reducer = copyreg.dispatch_table.get(type(value))
    try:
        found = value.__reduce_ex__(4) if reducer is None else reducer(value)
    except Exception as error:
        raise UnheldError(value) from error
    if isinstance(found, str):
        return found
    function, arguments, *rest = found
    state, items, pairs, setter = [*rest, None, None, None, None][:4]
    if setter is not None:
        raise UnheldError(value)
    return function, arguments, state, list(items or ()), [tuple(pair) for pair in pairs or ()]


def fill(value: Any, state: Any, items: list[Any], pairs: list[tuple[Any, Any]]) -> None:
    """Gives a new object the state that :func:`reduced` found, as ``copy.copy`` does."""
    if state is not None:
        if hasattr(value, "__setstate__"):
            value.__setstate__(state)
        else:
            own, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
            set_attributes(value, {**(own or {}), **(slots or {})})
    for item in items:
        value.append(item)
    for key, item in pairs:
        value[key] = item


def cells_of(function: types.FunctionType) -> Iterator[tuple[str, types.CellType]]:
    """The variables that a function shares with the one in which it was defined, by name."""
    yield from zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)


def has_own_state(function: types.FunctionType) -> bool:
    """Whether a function holds variables of its own: shared variables, defaults or attributes.

    A function of a module is one and the same for all environments.
    """
    if is_importable(function):
        return False
    return bool(function.__closure__ or function.__defaults__ or function.__kwdefaults__) or bool(
        function.__dict__
    )


def pcg64_words(state: Any) -> list[int]:
    """The state of a PCG64 as ten integers below ``2^32``."""
    numbers = state["state"]
    one, other, mask = numbers["state"], numbers["inc"], 0xFFFFFFFF
    # Written out, because it runs at every step.
    return [
        one & mask,
        one >> 32 & mask,
        one >> 64 & mask,
        one >> 96,
        other & mask,
        other >> 32 & mask,
        other >> 64 & mask,
        other >> 96,
        state["has_uint32"],
        state["uinteger"],
    ]


def _pcg64_state(words: list[float]) -> dict[str, Any]:
    a, b, c, d, e, f, g, h, has_uint32, uinteger = map(int, words)
    return {
        "bit_generator": "PCG64",
        "state": {
            "state": a | b << 32 | c << 64 | d << 96,
            "inc": e | f << 32 | g << 64 | h << 96,
        },
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }


def _is_python_class(kind: type) -> bool:
    """Whether the class was made by a class statement: such classes can be changed."""
    heap_type = 1 << 9
    return bool(kind.__flags__ & heap_type) and isinstance(
        vars(kind).get("__new__", staticmethod), staticmethod | type(staticmethod)
    )


def _name_of(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{_name_of(type(value))}.{value.name}"
    if isinstance(value, types.ModuleType):
        return value.__name__
    name = getattr(value, "__qualname__", None)
    if isinstance(value, types.FunctionType):
        code = value.__code__
        name = f"{name}:{code.co_filename}:{code.co_firstlineno}:{code.co_code!r}{code.co_consts}"
    return f"{value!r}" if name is None else f"{getattr(value, '__module__', '')}:{name}"


def _hash(text: str) -> int:
    """48 bits, which a float64 holds exactly."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")
