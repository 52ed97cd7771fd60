"""Notices when what is not saved changes: constants of an environment, which all states share."""

import operator
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.known_objects import KnownObjects, UnheldError
from pgtoolkit.envs.adapters.gymnasium.places import (
    ATOMS,
    AttributePlace,
    ContentPlace,
    NewAttributesPlace,
    Place,
)
from pgtoolkit.envs.adapters.gymnasium.pytree_codes import Numbers
from pgtoolkit.envs.adapters.gymnasium.pytree_reader import Reading, unflatten
from pgtoolkit.envs.adapters.gymnasium.pytree_writer import Writer

LARGE_BYTES, LARGE_ITEMS = 1 << 16, 1 << 12
"""Constants that are larger are compared in turns, one at each look."""

Guard: TypeAlias = Callable[[], Sequence[Place]]
"""Returns the places whose content is not what it was; a constant time near a microsecond."""


Content: TypeAlias = Numbers | NDArray[Any] | None
"""The content of a place: of an array a copy; None if it cannot be saved."""


def content_of(place: Place, known: KnownObjects) -> Content:
    """The present content of a place."""
    array = _array_in(place)
    return content_numbers(place, known) if array is None else array.copy()


def content_numbers(place: Place, known: KnownObjects) -> Numbers | None:
    """The present content of a place as numbers; None if it cannot be saved."""
    writer = Writer(known)
    try:
        place.put(writer)
    except UnheldError:
        return None
    return Numbers(tuple(writer.codes), writer.values)


def are_same(one: Content, other: Content) -> bool:
    """Whether two contents are equal to the bit; what cannot be saved equals nothing."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.tobytes() == other.tobytes()
    if not isinstance(one, Numbers) or not isinstance(other, Numbers) or one.codes != other.codes:
        return False
    return np.array(one.values).tobytes() == np.array(other.values).tobytes()


def content_value(content: Content, reading: Reading) -> Any:
    """Rebuilds a content."""
    if isinstance(content, Numbers):
        return unflatten(content.codes, content.values, reading)
    return content


def _array_in(place: Place) -> Any:
    """The array whose content the place is, as a NumPy array; None if it is another place."""
    owner = place.owner if isinstance(place, ContentPlace) else None
    if isinstance(owner, torch.Tensor):
        return owner.detach().numpy()
    return owner if isinstance(owner, np.ndarray) and not owner.dtype.hasobject else None


@final
class Watch:
    """Compares places with the contents that they had when the watch began.

    Args:
        places: the places.
        known: the objects of the environment.
    """

    def __init__(self, places: Sequence[Place], known: KnownObjects) -> None:
        self.known = known
        owners: dict[int, list[AttributePlace]] = {}
        new_names: dict[int, NewAttributesPlace] = {}
        self.small: list[Guard] = []
        self.large: list[Guard] = []
        for place in places:
            if isinstance(place, AttributePlace):
                owners.setdefault(id(place.owner), []).append(place)
            elif isinstance(place, NewAttributesPlace):
                new_names[id(place.owner)] = place
            elif isinstance(place, ContentPlace):
                guards = self.large if _is_large(place.owner) else self.small
                guards.append(_content_guard(place, known))
            else:
                self.small.append(_ValueGuard(place, known))
        for key in {**owners, **new_names}:
            found = owners.get(key, [])
            simple = [place for place in found if self._is_simple(place)]
            self.small += [_NumbersGuard(p, known) for p in found if p not in simple]
            if simple or key in new_names:
                self.small.append(_OwnerGuard(simple, new_names.get(key), known))
        self._turn = 0

    def look(self) -> list[Place]:
        """The places that have changed, of those that are not large."""
        found: list[Place] = []
        for guard in self.small:
            changed = guard()
            if changed:
                found += changed
        return found

    def look_at_large(self) -> Sequence[Place]:
        """Compares a part of one of the large contents, the next at each call."""
        if not self.large:
            return ()
        self._turn = (self._turn + 1) % len(self.large)
        guard = self.large[self._turn]
        return guard.next_part() if isinstance(guard, _ArrayGuard) else guard()

    def look_at_all_large(self) -> list[Place]:
        """Compares all large contents."""
        return [place for guard in self.large for place in guard()]

    def _is_simple(self, place: Place) -> bool:
        """Whether the identity of the value tells whether it changed."""
        return _keeps_identity(place.read(), self.known)


def _keeps_identity(value: Any, known: KnownObjects) -> bool:
    if isinstance(value, ATOMS) or known.number(value) is not None:
        return True
    if isinstance(value, (tuple, frozenset)):
        return all(_keeps_identity(item, known) for item in value)
    writer = Writer(known)
    try:
        writer.put(value)
    except UnheldError:
        return True
    return not writer._met


class _OwnerGuard:
    """Constant attributes of one object, and the names of its attributes."""

    def __init__(
        self, places: list[AttributePlace], new: NewAttributesPlace | None, known: KnownObjects
    ) -> None:
        self.places, self.new, self.known = places, new, known
        owner = places[0].owner if places else new.owner  # type: ignore[union-attr]
        self.own: dict[str, Any] = vars(owner)
        self._expect()

    def _expect(self) -> None:
        present = [p.key for p in self.places if p.key in self.own]
        self.absent = [p.key for p in self.places if p.key not in self.own]
        others = () if self.new is None else self.own.keys() - set(present)
        keys = [*present, *others]
        # An itemgetter of one key returns no tuple.
        keys = keys * 2 if len(keys) == 1 else keys
        self.get: Callable[[Any], Any] = operator.itemgetter(*keys) if keys else lambda own: ()
        self.expected = [self.own[key] for key in present]
        self.size = len(self.own) if self._has_known_names() else -1
        """The number of attributes, if new ones are watched."""
        self.values = [p.read() for p in self.places]

    def __call__(self) -> Sequence[Place]:
        own = self.own
        try:
            # The map stops after the expected ones.
            same = all(map(operator.is_, self.get(own), self.expected))
        except KeyError:
            same = False
        # No other name is there if all names of before are, and as many.
        known_names = (same and len(own) == self.size) or self._has_known_names()
        if same and known_names and not (self.absent and any(k in own for k in self.absent)):
            return ()
        found: list[Place] = [
            place
            for place, before in zip(self.places, self.values, strict=True)
            if place.read() is not before and not self._equal(place, before)
        ]
        if not known_names and self.new is not None:
            found.append(self.new)
        if not found:
            self._expect()
        return found

    def _has_known_names(self) -> bool:
        return self.new is None or self.own.keys() <= self.new.names

    def _equal(self, place: AttributePlace, before: Any) -> bool:
        writer = Writer(self.known)
        try:
            writer.put(before)
        except UnheldError:
            return False
        expected = Numbers(tuple(writer.codes), writer.values)
        return are_same(content_numbers(place, self.known), expected)


class _ValueGuard:
    """A place that is not in a dictionary."""

    def __init__(self, place: Place, known: KnownObjects) -> None:
        self.place, self.known, self.before = place, known, place.read()
        self.simple = _keeps_identity(self.before, known)
        self.numbers = content_numbers(place, known)

    def __call__(self) -> Sequence[Place]:
        if self.simple and self.place.read() is self.before:
            return ()
        return (
            () if are_same(content_numbers(self.place, self.known), self.numbers) else [self.place]
        )


class _NumbersGuard:
    """A place whose value can change without becoming another object."""

    def __init__(self, place: Place, known: KnownObjects) -> None:
        self.place, self.known = place, known
        self.numbers = content_numbers(place, known)

    def __call__(self) -> Sequence[Place]:
        return (
            () if are_same(content_numbers(self.place, self.known), self.numbers) else [self.place]
        )


class _ArrayGuard:
    def __init__(self, place: ContentPlace) -> None:
        self.place, self.array, self.part = [place], _array_in(place), 0
        self.before = self.array.tobytes()

    def __call__(self) -> Sequence[Place]:
        return () if self.array.tobytes() == self.before else self.place

    def next_part(self) -> Sequence[Place]:
        """Compares a part of the array, the next at each call."""
        items = self.array.reshape(-1)  # a view, unless the array has gaps
        size = max(1, LARGE_BYTES // 4 // items.itemsize)
        start, stop = self.part, min(self.part + size, len(items))
        self.part = 0 if stop == len(items) else stop
        before = self.before[start * items.itemsize : stop * items.itemsize]
        return () if items[start:stop].tobytes() == before else self.place


class _ItemsGuard:
    """A list, a deque or a dictionary."""

    def __init__(self, place: ContentPlace, known: KnownObjects) -> None:
        self.place, self.known = place, known
        self._expect()

    def _expect(self) -> None:
        self.before = _items(self.place.owner)
        self.numbers = content_numbers(self.place, self.known)
        self.deep = not all(_keeps_identity(item, self.known) for item in self.before)

    def __call__(self) -> Sequence[Place]:
        now = _items(self.place.owner)
        alike = len(now) == len(self.before) and all(map(operator.is_, now, self.before))
        if alike and not self.deep:
            return ()
        if not are_same(content_numbers(self.place, self.known), self.numbers):
            return [self.place]
        self._expect()
        return ()


def _items(owner: Any) -> list[Any]:
    return [*owner.keys(), *owner.values()] if isinstance(owner, dict) else list(owner)


def _content_guard(place: ContentPlace, known: KnownObjects) -> Guard:
    owner = place.owner
    if _array_in(place) is not None:
        return _ArrayGuard(place)
    if isinstance(owner, (list, deque, dict)):
        return _ItemsGuard(place, known)
    position = _position_of(owner)
    return _NumbersGuard(place, known) if position is None else _RandomGuard(place, position)


class _RandomGuard:
    """A random generator."""

    def __init__(self, place: Place, position: Callable[[], Any]) -> None:
        self.place, self.position, self.before = [place], position, position()

    def __call__(self) -> Sequence[Place]:
        return () if self.position() == self.before else self.place


def _position_of(owner: Any) -> Callable[[], Any] | None:
    """A function that tells whether a random generator was used, fast; None for others."""
    if type(owner) is random.Random:
        return owner.getstate
    if isinstance(owner, np.random.Generator):
        bits = owner.bit_generator
        return (lambda: bits.state) if isinstance(bits, np.random.PCG64) else None
    if isinstance(owner, np.random.RandomState):

        def position() -> Any:
            kind, words, *rest = owner.get_state()
            return kind, np.asarray(words).tobytes(), *rest

        return position
    return None


def _is_large(owner: Any) -> bool:
    if isinstance(owner, (np.ndarray, torch.Tensor)):
        return bool(owner.nbytes > LARGE_BYTES)
    return hasattr(owner, "__len__") and len(owner) > LARGE_ITEMS
