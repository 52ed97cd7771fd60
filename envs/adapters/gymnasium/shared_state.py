"""Variables that all environments of a class share, which cannot be saved for each of them.

These are attributes of classes, variables of modules, and variables and default arguments of the
classes' functions. Positions of Python generators and files are watched too: they can be seen but
not put back.
"""

import dis
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, final

import numpy as np

from pgtoolkit.envs.adapters.gymnasium.known_objects import (
    OPAQUE_MODULES,
    KnownObjects,
    cells_of,
)
from pgtoolkit.envs.adapters.gymnasium.places import (
    ATOMS,
    AttributePlace,
    CellPlace,
    ContentPlace,
    NewAttributesPlace,
    Place,
)
from pgtoolkit.envs.adapters.gymnasium.pytree_writer import Writer
from pgtoolkit.envs.adapters.gymnasium.watch import Watch
from pgtoolkit.errors import RequestError

CONTAINER_TYPES = (list, dict, set, deque, np.ndarray)

ADDED_BY_PYTHON = ("__slotnames__", "__annotations__", "__annotations_cache__", "__signature__")
"""Attributes that Python itself adds to classes when they are copied or inspected."""

GLOBAL_CODES = ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL")
"""Instructions that use a variable of a module."""

TRUSTED_MODULES = {"gymnasium", "numpy", "torch", "pgtoolkit", "mujoco", "scipy", *OPAQUE_MODULES}
"""Libraries whose own variables are not looked at."""


@final
class Position:
    """The position of a Python generator or of a file, as a place."""

    def __init__(self, name: str, moving: Any) -> None:
        self.name, self.layer, self.moving = name, 0, moving

    def read(self) -> Any:
        if isinstance(self.moving, types.GeneratorType):
            frame = self.moving.gi_frame
            return -2 if frame is None else frame.f_lasti
        try:
            return self.moving.tell()
        except (OSError, ValueError, TypeError):
            return None

    def write(self, value: Any) -> None:
        raise NotImplementedError("a position is watched, not restored")

    def put(self, writer: Writer) -> None:
        writer.put(self.read())


class _Variables:
    """Gives the variables of a module the form of an object's attributes."""


@final
class SharedState:
    """Compares what environments share with what it was when this was made.

    Args:
        objects: the objects of an environment; their classes are searched.
        moving: generators and files, by name.
    """

    def __init__(self, objects: Iterable[Any], moving: Iterable[tuple[str, Any]]) -> None:
        self.known = KnownObjects()
        self.places: list[Place] = []
        self._met: dict[int, Any] = {}
        self._modules: dict[int, _Variables] = {}
        self._variables: set[tuple[int, str]] = set()
        self._queue: deque[Any] = deque()
        for value in objects:
            kind = value if isinstance(value, type) else type(value)
            self._queue.extend(base for base in kind.__mro__ if _is_of_user(base))
            if isinstance(value, types.FunctionType) and _is_of_user(value):
                # Its variables are held as the environment's own.
                self._met |= {id(cell): cell for _, cell in cells_of(value)}
                self._queue.append(value)
        while self._queue:
            self._visit(self._queue.popleft())
        positions: Any = [Position(name, value) for name, value in moving]
        self.watch = Watch([*self.places, *positions], self.known)

    def require_unchanged(self, name: str) -> None:
        """Raises if a variable changed.

        Raises:
            RequestError: names it.
        """
        changed = [*self.watch.look(), *self.watch.look_at_large()]
        if not changed:
            return
        place = changed[0]
        if isinstance(place, Position):
            raise RequestError(
                f"{name} reads from {place.name}, a {type(place.moving).__name__}, which cannot be "
                "put back to where it was, and the environments of a batch would share it. Read "
                "all of it into a list in __init__ and keep an index, or use --differentiate model "
                "or none"
            )
        shown = place.name
        if isinstance(place, NewAttributesPlace):
            shown = f"{place.name[:-1]}{next(iter(place.read()), '')}"
        raise RequestError(
            f"{name} writes {shown}, which all its environments share: the rows of a batch would "
            "change each other. Keep it in an attribute of the environment itself (self.x = ... in "
            "__init__), or use --differentiate model or none"
        )

    def __deepcopy__(self, memo: Any) -> "SharedState":
        return self

    def __reduce__(self) -> Any:
        return SharedState, ([], [])

    def _visit(self, value: Any) -> None:
        """Adds the variables of a class or a function."""
        if id(value) in self._met:
            return
        self._met[id(value)] = value
        if isinstance(value, type):
            self._visit_class(value)
        else:
            self._visit_function(value)

    def _visit_class(self, kind: type) -> None:
        found = vars(kind)
        for key, value in found.items():
            if isinstance(value, (*ATOMS, *CONTAINER_TYPES)) and not key.startswith("__"):
                self._add(AttributePlace(f"{kind.__name__}.{key}", 0, kind, key), value)
            else:
                self._queue.extend(_functions(value))
        names = {*found, *ADDED_BY_PYTHON}
        self.places.append(NewAttributesPlace(f"{kind.__name__}.*", 0, kind, names))

    def _visit_function(self, function: types.FunctionType) -> None:
        for index, (variable, cell) in enumerate(cells_of(function)):
            if id(cell) not in self._met and variable != "__class__":
                self._met[id(cell)] = cell
                place = CellPlace(f"{function.__qualname__}: {variable}", 0, function, index)
                self._follow(place, place.read())
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            if isinstance(value, CONTAINER_TYPES):
                self._add_content(f"a default argument of {function.__qualname__}", value)
        names = set(_names(function.__code__))
        self._visit_variables(function.__globals__, names, function.__module__ or "")
        for module in [function.__globals__.get(name) for name in names]:
            if isinstance(module, types.ModuleType) and _is_of_user(module):
                self._visit_variables(vars(module), names, module.__name__)

    def _visit_variables(self, variables: dict[str, Any], names: set[str], module: str) -> None:
        for name in sorted(names & variables.keys()):
            if (id(variables), name) in self._variables:
                continue
            self._variables.add((id(variables), name))
            place = AttributePlace(f"{module}.{name}", 0, self._owner(variables), name)
            self._follow(place, variables[name])

    def _owner(self, variables: dict[str, Any]) -> _Variables:
        owner = self._modules.get(id(variables))
        if owner is None:
            owner = self._modules[id(variables)] = _Variables()
            owner.__dict__ = variables
        return owner

    def _follow(self, place: Place, value: Any) -> None:
        """Adds a variable if it holds data; searches it if it is a class or a function."""
        if isinstance(value, (*ATOMS, *CONTAINER_TYPES)):
            self._add(place, value)
        elif isinstance(value, (type, types.FunctionType)) and _is_of_user(value):
            self._queue.append(value)

    def _add(self, place: Place, value: Any) -> None:
        self.places.append(place)
        self._add_content(place.name, value)

    def _add_content(self, name: str, value: Any) -> None:
        if isinstance(value, CONTAINER_TYPES) and id(value) not in self._met:
            self._met[id(value)] = value
            self.known.add(value)
            if type(value) in CONTAINER_TYPES:
                self.places.append(ContentPlace(name, 0, value))
            inside = value.values() if isinstance(value, dict) else value
            for item in () if isinstance(value, np.ndarray) else list(inside):
                if isinstance(item, CONTAINER_TYPES):
                    self._add_content(name, item)
                elif not isinstance(item, ATOMS) and self.known.number(item) is None:
                    self.known.add(item)


def _functions(value: Any) -> Iterator[types.FunctionType]:
    """The functions in a member of a class."""
    inner = [getattr(value, name, None) for name in ("__func__", "fget", "fset", "func")]
    for found in (value, *inner):
        if isinstance(found, types.FunctionType):
            yield from (found, *_functions(getattr(found, "__wrapped__", None)))


def _names(code: types.CodeType) -> Iterator[str]:
    """The names of module variables that a function and the functions in it use.

    ``co_names`` has those of attributes too, and ``self.t`` is no use of a variable ``t``.
    """
    yield from (str(i.argval) for i in dis.get_instructions(code) if i.opname in GLOBAL_CODES)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_of_user(value: Any) -> bool:
    """Whether a class, function or module is neither of Python's own nor of a trusted library."""
    is_module = isinstance(value, types.ModuleType)
    module = value.__name__ if is_module else getattr(value, "__module__", None)
    root = str(module or "builtins").split(".")[0]
    own = root in sys.stdlib_module_names and root != "__main__"
    return not own and root not in TRUSTED_MODULES and root != "builtins"
