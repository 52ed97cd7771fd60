"""The state of an ordinary environment with its wrappers, as numbers and texts.

Everything that can be reached from the environment when it has been made is written, by value; so
is what its attributes come to hold later. What an environment keeps for ever, such as its lists and
its simulation, is written in place. A state that one process saved can be put into an environment
that another process made in the same way. Nothing that a saved state says is imported.
"""

import enum
import functools
import hashlib
import random
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.envs.adapters.gymnasium.known_objects import (
    KnownObjects,
    UnheldError,
    treatment_of,
)
from pgtoolkit.envs.adapters.gymnasium.places import NewAttributesPlace, Place, Search, layers_of
from pgtoolkit.envs.adapters.gymnasium.pytree_codes import ABSENT, DTYPES, UNSAVED
from pgtoolkit.envs.adapters.gymnasium.pytree_reader import compiled_reader, new_reading
from pgtoolkit.envs.adapters.gymnasium.pytree_writer import Writer, flatten
from pgtoolkit.envs.adapters.gymnasium.shared_state import SharedState
from pgtoolkit.envs.adapters.gymnasium.state_slots import StatePair, has_get_and_set_state
from pgtoolkit.envs.adapters.gymnasium.watch import content_numbers
from pgtoolkit.envs.ordinary.opaque_places import opaque_places
from pgtoolkit.envs.ordinary.plain_digest import plain_digest
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv

SAFE_TREATMENTS = ("attributes", "name")
"""Classes whose objects are made without a call of anything that the class defines."""

ADDRESS = re.compile(r"0x[0-9a-f]+")


@final
class PythonState:
    """The places of an environment that can hold state, found before its first reset.

    Args:
        env: the environment with its wrappers, just made.
        things: classes and the like that its saved states may name, beside those that it shows.

    Raises:
        RequestError: there are too many places.
    """

    def __init__(self, env: AnyEnv, things: Iterable[Any] = ()) -> None:
        self.name = type(env.unwrapped).__name__
        self.known = KnownObjects()
        search = Search(self.known)
        self.layers = layers_of(env)
        search.run(self.layers)
        self.moving = search.moving
        base: Any = env.unwrapped
        self.pair = StatePair("get_state()", 0, base) if has_get_and_set_state(base) else None
        unused = _take_generators(search)
        self.places: list[Place] = [p for p in search.places if id(p) not in unused]
        self.places += opaque_places(self.known.objects)
        self.layout = _layout(self.places, self.known.objects)
        for thing in (*things, *DTYPES.values(), *things_of_generators()):
            self.known.thing_code(thing)
        for place in self.places:
            self._is_held(place)  # so that all classes that it shows from the start are known

    def capture(self) -> dict[str, Any]:
        """The whole state.

        An environment with ``get_state`` and ``set_state`` is asked for what its attributes hold
        that cannot be saved otherwise.

        Raises:
            RequestError: something cannot be saved; the message names it.
        """
        if self.pair is not None:
            return self.capture_held()
        everything = list(range(len(self.places)))
        try:
            return self._write(self.places, everything)
        except RequestError:
            self._name_unheld()
            raise

    def capture_held(self) -> dict[str, Any]:
        """That part of the state that can be saved.

        Raises:
            RequestError: several arrays lie in the same memory.
        """
        places = [
            HeldAttributes(place, self.known) if isinstance(place, NewAttributesPlace) else place
            for place in self.places
        ]
        return self._write(places, [k for k, place in enumerate(places) if self._is_held(place)])

    def fingerprint(self) -> Tensor:
        """A hash of what each place holds, int64 ``[P]``; 0 where that is no plain value.

        Just after it was made, that of an environment with the same constants is the same, in
        every process. The environment's own ``get_state`` is not called, which may need a reset.
        """
        found = torch.zeros(len(self.places), dtype=torch.int64)
        for index, place in enumerate(self.places):
            found[index] = plain_digest(place.read())
        return found

    def names_of(self, places: Tensor) -> list[str]:
        """The names of places ``[K]``, such as ``reward_scale``."""
        return [self.places[index].name for index in places.tolist()]

    def restore(self, state: dict[str, Any]) -> None:
        """Puts a captured state into the environment, whatever state that is in.

        Raises:
            RequestError: it is of another environment, or damaged.
        """
        if state.get("layout") != self.layout:
            raise RequestError(
                f"the saved state is of another {self.name}, or of an earlier version of it"
            )
        try:
            self._restore(state)
        except RequestError:
            raise
        except Exception as error:
            raise RequestError(
                f"the saved state of {self.name} is damaged ({type(error).__name__}: "
                f"{single_line(error)})"
            ) from error

    def shared_state(self) -> SharedState:
        """What all environments of its kind share, as it is now, to be compared later."""
        return SharedState([*self.known.objects, *self.known.things], self.moving)

    def _is_held(self, place: Place) -> bool:
        return content_numbers(place, self.known) is not None

    def _name_unheld(self) -> None:
        """Raises with the name of the first place whose content cannot be saved."""
        for place in self.places:
            content = place.read()
            named = content if isinstance(place, NewAttributesPlace) else {"": content}
            for key, value in ({} if named is ABSENT else named).items():
                if flatten(value, self.known) is None:
                    raise RequestError(
                        f"{self.name}.{place.name.removesuffix('*')}{key} holds a "
                        f"{type(value).__name__}, which cannot be saved"
                    )

    def _write(self, places: Sequence[Place], held: list[int]) -> dict[str, Any]:
        writer, ends = Writer(self.known), []
        slots = [places[index] for index in held]
        try:
            for slot in slots if self.pair is None else (*slots, self.pair):
                slot.put(writer)
                ends.append((len(writer.codes), len(writer.values)))
        except UnheldError as error:
            raise RequestError(f"a {error.kind} of {self.name} cannot be saved") from error
        known = self.known
        named = set(writer.codes)  # those of other captures would depend on how many there were
        return {
            "layout": self.layout,
            "held": torch.tensor(held, dtype=torch.int64),
            "ends": torch.tensor(ends, dtype=torch.int64).reshape(-1, 2),
            "codes": torch.tensor(writer.codes, dtype=torch.int64),
            "values": torch.from_numpy(np.array(writer.values, dtype=np.float64)),
            "texts": sorted(t for t in known.texts.values() if known.text_code(t) in named),
            "classes": sorted(
                _class_names(t for t in known.things if known.thing_code(t) in named)
            ),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        for text in state["texts"]:
            self.known.text_code(text)
        self._know_classes(state["classes"])
        slots: list[Any] = [self.places[index] for index in state["held"].tolist()]
        slots += [] if self.pair is None else [self.pair]
        codes, values = state["codes"].tolist(), state["values"].tolist()
        reading, found, code, value = new_reading(self.known), [], 0, 0
        for code_end, value_end in state["ends"].tolist():
            read = compiled_reader((*codes[code:code_end], UNSAVED))
            found.append(read(values[value:value_end], reading))
            code, value = code_end, value_end
        # All are read before the first is written: reading looks at known objects.
        for slot, content in zip(slots, found, strict=True):
            slot.write(content)

    def _know_classes(self, names: list[str]) -> None:
        """Learns the classes that the state names, of the packages of the environment alone.

        An object of such a class is made without its ``__init__``; no other class is looked up.
        """
        roots = {type(layer).__module__.split(".")[0] for layer in self.layers}
        for name in names:
            module, _, path = name.partition(":")
            found: Any = sys.modules.get(module)
            for part in path.split("."):
                found = vars(found).get(part) if hasattr(found, "__dict__") else None
            known = isinstance(found, type) and treatment_of(found) in SAFE_TREATMENTS
            if known and found.__module__ == module and module.split(".")[0] in roots:
                self.known.thing_code(next(iter(found)) if issubclass(found, enum.Enum) else found)


@functools.cache
def things_of_generators() -> tuple[Any, ...]:
    """The classes and functions that make random generators, which environments make at resets."""
    known = KnownObjects()
    bits = (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox)
    flatten([random.Random(0), np.random.RandomState(0)], known)
    flatten([np.random.Generator(kind(0)) for kind in bits], known)
    return tuple(known.things)


def _take_generators(search: Search) -> set[int]:
    """Takes the generators that the search made away again; the addresses of their places.

    Their numbers would differ from process to process. A space that its environment samples from
    makes one later, which is saved then.
    """
    made = {id(space._np_random) for space in search.unseeded}
    for space in search.unseeded:
        space._np_random = None
    return {id(place) for place in search.of_spaces if id(place.read()) in made}


@final
class HeldAttributes:
    """Those new attributes of an object that can be saved, as a place.

    Args:
        place: all new attributes.
        known: the objects that are named.
    """

    def __init__(self, place: NewAttributesPlace, known: KnownObjects) -> None:
        self.place, self.known, self.name, self.layer = place, known, place.name, place.layer

    def read(self) -> Any:
        found = self.place.read()
        if found is ABSENT:
            return ABSENT
        return {k: value for k, value in found.items() if flatten(value, self.known) is not None}

    def write(self, value: Any) -> None:
        self.place.write(value)

    def put(self, writer: Writer) -> None:
        writer.put(self.read())


def _class_names(things: Iterable[Any]) -> Iterator[str]:
    """The names of the classes among the things, and of those of enumerations' members."""
    for thing in things:
        kind = type(thing) if isinstance(thing, enum.Enum) else thing
        if isinstance(kind, type):
            yield f"{kind.__module__}:{kind.__qualname__}"


def _layout(places: list[Place], objects: list[Any]) -> str:
    """A hash of the names of the places and of the types of what the environment keeps."""
    names = [place.name for place in places] + [type(value).__name__ for value in objects]
    # Keys of dictionaries may be objects, whose addresses are part of the names.
    text = ADDRESS.sub("", "\n".join(names))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
