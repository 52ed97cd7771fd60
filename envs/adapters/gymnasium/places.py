"""The places in an environment that can hold state: attributes, contents of containers, variables.

All Python objects that the environment and its wrappers keep are searched, so that state is found
wherever it is: in a helper object, a list, a variable of a function.
"""

import dataclasses
import functools
import io
import random
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any, Protocol, final

import gymnasium
import numpy as np
import torch

from pgtoolkit.envs.adapters.gymnasium.known_objects import (
    KnownObjects,
    UnheldError,
    attributes_of,
    cells_of,
    reduced,
    slot_names,
    treatment_of,
)
from pgtoolkit.envs.adapters.gymnasium.pytree_codes import ABSENT, Absent
from pgtoolkit.envs.adapters.gymnasium.pytree_writer import Writer
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

IGNORED_ATTRIBUTES = ("_np_random_seed", "spec", "_cached_spec", "mujoco_renderer")
"""Attributes of Gymnasium on which no step depends: the last seed, the registration, pictures."""

SPACE_NAMES = ("observation_space", "action_space")

MAX_PLACES = 200_000
"""An environment with more places is refused."""

CONTENT_TYPES = (
    list,
    set,
    deque,
    dict,
    OrderedDict,
    defaultdict,
    np.ndarray,
    torch.Tensor,
    np.random.Generator,
    np.random.RandomState,
    random.Random,
)
"""Objects whose content is restored in place."""

ATOMS = (type(None), bool, int, float, complex, str, bytes, np.generic, Absent)


class Place(Protocol):
    """A place that can hold state."""

    @property
    def name(self) -> str: ...

    @property
    def layer(self) -> int:
        """The number of wrappers between the environment and the object."""
        ...

    def read(self) -> Any: ...

    def write(self, value: Any) -> None: ...

    def put(self, writer: Writer) -> None:
        """Appends the content to the writer."""
        ...


@final
@dataclasses.dataclass(eq=False)
class AttributePlace:
    """An attribute in the dictionary of a Python object."""

    name: str
    layer: int
    owner: Any
    key: str

    def read(self) -> Any:
        return vars(self.owner).get(self.key, ABSENT)

    def write(self, value: Any) -> None:
        if value is ABSENT:
            vars(self.owner).pop(self.key, None)
        else:
            vars(self.owner)[self.key] = value

    def put(self, writer: Writer) -> None:
        writer.put(vars(self.owner).get(self.key, ABSENT))


@final
@dataclasses.dataclass(eq=False)
class SlotPlace:
    """An attribute in ``__slots__`` of a Python object."""

    name: str
    layer: int
    owner: Any
    key: str

    def read(self) -> Any:
        return getattr(self.owner, self.key, ABSENT)

    def write(self, value: Any) -> None:
        if value is not ABSENT:
            object.__setattr__(self.owner, self.key, value)
        elif hasattr(self.owner, self.key):
            object.__delattr__(self.owner, self.key)

    def put(self, writer: Writer) -> None:
        writer.put(self.read())


@final
@dataclasses.dataclass(eq=False)
class NewAttributesPlace:
    """The attributes of an object that it did not have when it was searched."""

    name: str
    layer: int
    owner: Any
    names: set[str]

    def read(self) -> Any:
        own = vars(self.owner)
        return {key: own[key] for key in own if key not in self.names} or ABSENT

    def write(self, value: Any) -> None:
        own = vars(self.owner)
        for key in own.keys() - self.names:
            del own[key]
        own.update({} if value is ABSENT else value)

    def put(self, writer: Writer) -> None:
        writer.put(self.read())


@final
@dataclasses.dataclass(eq=False)
class CellPlace:
    """A variable that a function shares with the one in which it was defined."""

    name: str
    layer: int
    function: Any
    index: int

    def read(self) -> Any:
        try:
            return self.function.__closure__[self.index].cell_contents
        except ValueError:
            return ABSENT

    def write(self, value: Any) -> None:
        if value is not ABSENT:
            self.function.__closure__[self.index].cell_contents = value

    def put(self, writer: Writer) -> None:
        writer.put(self.read())


@final
@dataclasses.dataclass(eq=False)
class ContentPlace:
    """The content of a container, an array or a random generator."""

    name: str
    layer: int
    owner: Any

    def read(self) -> Any:
        return self.owner

    def write(self, value: Any) -> None:
        write_content(self.owner, value)

    def put(self, writer: Writer) -> None:
        writer.put_content(self.owner)


@final
@dataclasses.dataclass(eq=False)
class Search:
    """Finds the places of all objects that can be reached from the layers of an environment.

    Args:
        known: receives the objects; one that is known already is not searched again.
    """

    known: KnownObjects
    places: list[Place] = dataclasses.field(default_factory=list)
    moving: list[tuple[str, Any]] = dataclasses.field(default_factory=list)
    """Generators and files, by name: their position can be seen but not put back."""
    of_spaces: list[Place] = dataclasses.field(default_factory=list)
    """The generators of spaces."""
    unseeded: list[Any] = dataclasses.field(default_factory=list)
    """Spaces that had no generator before the search, which reads it and so makes one."""
    reached: dict[int, Any] = dataclasses.field(default_factory=dict)
    """All objects that were reached, by address."""

    def run(self, layers: list[AnyEnv]) -> None:
        """Searches everything that can be reached from the layers, the innermost first.

        Raises:
            RequestError: there are too many places.
        """
        queue: deque[tuple[Any, str, int]] = deque()
        queue.extend((layer, "", index) for index, layer in enumerate(layers))
        while queue:
            value, name, layer = queue.popleft()
            if isinstance(value, ATOMS) or id(value) in self.reached:
                continue
            self.reached[id(value)] = value
            queue.extend((child, found, layer) for found, child in self._visit(value, name, layer))
            if len(self.places) > MAX_PLACES:
                raise RequestError(
                    f"more than {MAX_PLACES} places of {type(layers[0]).__name__} can hold state: "
                    "give the class get_state() and set_state(), or use --differentiate model"
                )

    def _visit(self, value: Any, name: str, layer: int) -> Iterator[tuple[str, Any]]:
        """Adds the places of one object; yields the names and values of what it refers to."""
        kind = type(value)
        new = self.known.number(value) is None
        if kind in CONTENT_TYPES:
            yield from self._visit_content(value, name, layer, new)
        elif isinstance(value, (tuple, frozenset)):
            yield from ((f"{name}[{index}]", item) for index, item in enumerate(value))
        elif kind is types.FunctionType:
            yield from self._visit_function(value, name, layer, new)
        elif kind is types.MethodType:
            yield from ((name, value.__self__), (name, value.__func__))
        elif kind is functools.partial:
            yield from ((name, part) for part in (value.func, value.args, value.keywords))
        elif isinstance(value, gymnasium.Space):
            yield from self._visit_space(value, name, layer, new)
        elif isinstance(value, gymnasium.Env) or treatment_of(kind) == "attributes":
            yield from self._visit_object(value, name, layer, new)
        elif new and _is_opaque(value):
            self.known.add(value)
            if isinstance(value, (types.GeneratorType, io.IOBase)):
                self.moving.append((name, value))

    def _visit_content(
        self, value: Any, name: str, layer: int, new: bool
    ) -> Iterator[tuple[str, Any]]:
        if new:
            self.known.add(value)
            if holds_content(value):
                self.places.append(ContentPlace(name, layer, value))
        if isinstance(value, np.ndarray):
            if isinstance(value.base, np.ndarray):
                yield name, value.base
            if value.dtype == object:
                yield from ((f"{name}[{k}]", item) for k, item in enumerate(value.ravel().tolist()))
        elif isinstance(value, dict):
            yield from ((f"{name}[{key!r}]", item) for key, item in list(value.items()))
            yield from ((name, key) for key in list(value))
        elif isinstance(value, (list, set, deque)):
            yield from ((f"{name}[{index}]", item) for index, item in enumerate(list(value)))

    def _visit_function(
        self, value: Any, name: str, layer: int, new: bool
    ) -> Iterator[tuple[str, Any]]:
        if new:
            self.known.add(value)
        for index, (variable, cell) in enumerate(cells_of(value)):
            place = CellPlace(f"{name}: {variable}", layer, value, index)
            if id(cell) not in self.reached:
                self.reached[id(cell)] = cell
                self.places += [place] * new
                yield place.name, place.read()
        yield from ((name, part) for part in (value.__defaults__, value.__kwdefaults__))
        yield from ((f"{name}.{key}", item) for key, item in vars(value).items())

    def _visit_space(
        self, value: Any, name: str, layer: int, new: bool
    ) -> Iterator[tuple[str, Any]]:
        """Of a space only its generator, because all else in it is constant."""
        place = AttributePlace(f"{name}._np_random", layer, value, "_np_random")
        if value._np_random is None:
            self.unseeded.append(value)
        generator = value.np_random  # made at its first use, which may be outside the environment
        if new:
            self.known.add(value)
            self.known.add(generator)
            found: list[Place] = [place, ContentPlace(place.name, layer, generator)]
            self.places += found
            self.of_spaces += found
        parts = getattr(value, "spaces", ())
        yield from ((name, part) for part in (parts.values() if isinstance(parts, dict) else parts))

    def _visit_object(
        self, value: Any, name: str, layer: int, new: bool
    ) -> Iterator[tuple[str, Any]]:
        prefix = f"{name}." if name else ""
        own = getattr(value, "__dict__", None)
        if new:
            self.known.add(value)
            if own is not None:
                names = {*own, *IGNORED_ATTRIBUTES}
                for key in (key for key in own if key not in IGNORED_ATTRIBUTES):
                    self.places.append(AttributePlace(prefix + key, layer, value, key))
                self.places.append(NewAttributesPlace(f"{prefix}*", layer, value, names))
            for key in slot_names(type(value)):
                self.places.append(SlotPlace(prefix + key, layer, value, key))
        for key, item in attributes_of(value).items():
            if key not in IGNORED_ATTRIBUTES:
                yield prefix + key, item
        if isinstance(value, gymnasium.Env):
            # Spaces may be attributes of the class.
            spaces = (vars(base).get(key) for base in type(value).__mro__ for key in SPACE_NAMES)
            yield from (("space", space) for space in spaces if isinstance(space, gymnasium.Space))


def layers_of(env: AnyEnv) -> list[AnyEnv]:
    """The environment and the wrappers around it, the innermost first."""
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers[::-1]


def _is_opaque(value: Any) -> bool:
    """Whether the object cannot be saved, so that it is kept as it is."""
    treatment = treatment_of(type(value))
    if treatment != "reduce":
        return treatment == "opaque"
    try:
        reduced(value)
    except UnheldError:
        return True
    return False


def holds_content(value: Any) -> bool:
    """Whether the content belongs to this object and can change.

    A view belongs to its base, and an array that cannot be written keeps its numbers.
    """
    if isinstance(value, np.ndarray):
        return value.flags.writeable and not isinstance(value.base, np.ndarray)
    return not isinstance(value, torch.Tensor) or (value.is_leaf and value.device.type == "cpu")


def write_content(owner: Any, value: Any) -> None:
    """Gives a container, an array or a random generator the content of another of its type.

    Raises:
        RequestError: an array has changed its shape in place.
    """
    if isinstance(owner, np.ndarray):
        if owner.shape != value.shape:
            raise RequestError("an array has changed its shape in place: make a new one instead")
        owner[...] = value
    elif isinstance(owner, torch.Tensor):
        with torch.no_grad():
            owner.copy_(value)
    elif isinstance(owner, list):
        owner[:] = value
    elif isinstance(owner, np.random.Generator):
        owner.bit_generator.state = value.bit_generator.state
    elif isinstance(owner, np.random.RandomState):
        owner.set_state(value.get_state())
    elif isinstance(owner, random.Random):
        owner.setstate(value.getstate())
    else:
        items = value.copy()
        owner.clear()
        owner.extend(items) if isinstance(owner, deque) else owner.update(items)
