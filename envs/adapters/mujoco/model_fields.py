"""The parameters of a MuJoCo model as places, for environments that change them.

Domain randomisation writes masses, friction or gravity into the model, of which all rows of a batch
have one. Each parameter is therefore a constant that becomes state when it changes.
"""

import ctypes
import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.pytree_writer import Writer

VISUAL_FIELDS = ("tex_", "mesh_", "skin_", "text_", "name", "path")
"""Beginnings of the names of fields that belong to pictures and texts, or never change."""

PARTS = ("opt", "stat")
"""Groups of parameters beside the arrays."""

MAX_GAP, MAX_FIELD = 4096, 1 << 16
"""Bytes between two arrays that are compared together, and of an array that is compared alone."""


@final
@dataclasses.dataclass(eq=False)
class FieldPlace:
    """A parameter of a model."""

    model: Any
    part: str
    """The group of the parameter; empty for the arrays of the model itself."""
    key: str
    layer: int = 0

    @property
    def name(self) -> str:
        return ".".join(name for name in ("model", self.part, self.key) if name)

    def read(self) -> Any:
        return getattr(getattr(self.model, self.part) if self.part else self.model, self.key)

    def write(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            self.read()[...] = value
        else:
            setattr(getattr(self.model, self.part) if self.part else self.model, self.key, value)

    def put(self, writer: Writer) -> None:
        value = self.read()
        writer.put(value.copy() if isinstance(value, np.ndarray) else value)


def model_fields(model: Any) -> list[FieldPlace]:
    """The parameters of an ``MjModel`` that a step could depend on."""
    found = [FieldPlace(model, "", key) for key in _array_names(model)]
    for part in PARTS:
        members = getattr(model, part)
        for key in (key for key in dir(members) if not key.startswith("_")):
            if isinstance(getattr(members, key), (bool, int, float, np.ndarray)):
                found.append(FieldPlace(model, part, key))
    return found


def field_guard(places: Sequence[FieldPlace]) -> Callable[[], Sequence[FieldPlace]]:
    """A function that returns the parameters whose values have changed since now.

    Arrays that are neighbours in the model's memory are compared together.
    """
    arrays = [place for place in places if isinstance(place.read(), np.ndarray)]
    scalars = [place for place in places if not isinstance(place.read(), np.ndarray)]
    owners = {part: getattr(places[0].model, part) for part in PARTS}
    getters = [
        (owners[part], operator.attrgetter(*(p.key for p in scalars if p.part == part)))
        for part in {place.part for place in scalars}
    ]
    numbers = [get(owner) for owner, get in getters]
    before = [place.read() for place in scalars]
    regions = list(_regions(arrays))
    contents = [region.tobytes() for region in regions]
    fields = [place.read().tobytes() for place in arrays]

    def changed() -> Sequence[FieldPlace]:
        found: list[FieldPlace] = []
        if any(get(o) != value for (o, get), value in zip(getters, numbers, strict=True)):
            found += [p for p, value in zip(scalars, before, strict=True) if p.read() != value]
        if any(r.tobytes() != value for r, value in zip(regions, contents, strict=True)):
            pairs = zip(arrays, fields, strict=True)
            found += [p for p, value in pairs if p.read().tobytes() != value]
            # The memory may also hold parameters that are state already.
            contents[:] = [region.tobytes() for region in regions]
        return found

    return changed


def _array_names(model: Any) -> Iterator[str]:
    for key in dir(model):
        if not key.startswith(("_", *VISUAL_FIELDS)):
            value = getattr(model, key)
            if isinstance(value, np.ndarray) and value.size and value.flags.writeable:
                yield key


def _regions(places: Sequence[FieldPlace]) -> Iterator[NDArray[np.uint8]]:
    """The memory of the arrays, joined where they are neighbours."""
    spans = sorted(
        (int(array.__array_interface__["data"][0]), array.nbytes)
        for array in (place.read() for place in places)
    )
    start, end = 0, 0
    for address, size in spans:
        if end and (address - end > MAX_GAP or size > MAX_FIELD):
            yield _memory(start, end)
            end = 0
        if not end:
            start = address
        end = max(end, address + size)
    if end:
        yield _memory(start, end)


def _memory(start: int, end: int) -> NDArray[np.uint8]:
    """The bytes between two addresses, which belong to the arrays of one model."""
    memory: Any = (ctypes.c_uint8 * (end - start)).from_address(start)
    found: NDArray[np.uint8] = np.frombuffer(memory, np.uint8)
    return found
