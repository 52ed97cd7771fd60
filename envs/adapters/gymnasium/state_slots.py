"""The state of an environment as an array: which places it has, saving and restoring them.

A *slot* is a place whose content differs between states. All other places are constants, which the
states share; they are watched, and one that changes becomes a slot at that moment. States that were
saved before hold nothing for it, and so they have the constant.

``S`` is the size of the array. It grows when a slot is added or outgrows its room.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.known_objects import KnownObjects, UnheldError
from pgtoolkit.envs.adapters.gymnasium.places import (
    IGNORED_ATTRIBUTES,
    AttributePlace,
    ContentPlace,
    NewAttributesPlace,
    Place,
    Search,
    holds_content,
    layers_of,
)
from pgtoolkit.envs.adapters.gymnasium.pytree_codes import ABSENT, Numbers
from pgtoolkit.envs.adapters.gymnasium.pytree_reader import Reading, new_reading
from pgtoolkit.envs.adapters.gymnasium.pytree_writer import Writer
from pgtoolkit.envs.adapters.gymnasium.shared_state import SharedState
from pgtoolkit.envs.adapters.gymnasium.state_layout import StateLayout
from pgtoolkit.envs.adapters.gymnasium.watch import (
    Content,
    Guard,
    Watch,
    are_same,
    content_numbers,
    content_of,
    content_value,
)
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.state import (
    Schema,
    StateError,
    anything,
    entries,
    flag,
    integer,
    items,
    require,
    series,
    text,
)

MAX_SIZE = 1 << 24
"""Most numbers of one state that is loaded from a file, so that a damaged one takes no memory."""

HELD_TYPES = (
    "numbers, texts, None, arrays, lists, tuples, dictionaries, sets, deques, random generators "
    "and plain Python objects of these"
)

KEEP_ADVICE = (
    f"Keep the state in attributes ({HELD_TYPES}) or give the class get_state() and set_state(); "
    "or differentiate otherwise: --differentiate model, or --differentiate none with `reinforce`"
)


@final
@dataclasses.dataclass(eq=False)
class StatePair:
    """``get_state()`` and ``set_state(state)`` of an environment."""

    name: str
    layer: int
    owner: Any

    def read(self) -> Any:
        return self.owner.get_state()

    def write(self, value: Any) -> None:
        self.owner.set_state(value)

    def put(self, writer: Writer) -> None:
        state = self.read()
        try:
            writer.put(state)
        except UnheldError as error:
            raise RequestError(
                f"{type(self.owner).__name__}.get_state() returned {type(state).__name__}: it must "
                "return an array of numbers, or a tuple of arrays and numbers"
            ) from error


Slot: TypeAlias = Place | StatePair


@final
class StateSlots:
    """Saves and restores the state of an environment.

    First the environment is rehearsed: :meth:`observe` is called after each reset and step, and
    finds the places that change. :meth:`settle` then lays the array out. Afterwards
    :meth:`capture` and :meth:`restore` can be used.

    Args:
        env: an environment that has not been reset.
        fields: further places, such as parameters of a simulator's model.
        field_guard: maps these places to a function that returns those that have changed since.
    """

    def __init__(
        self,
        env: AnyEnv,
        fields: Sequence[Place] = (),
        field_guard: Callable[[Any], Guard] | None = None,
    ) -> None:
        self.env, self.name = env, type(env.unwrapped).__name__
        self.layers = layers_of(env)
        self.known = KnownObjects()
        base: Any = env.unwrapped
        self.has_pair = has_get_and_set_state(base)
        self.slots: list[Slot] = [StatePair("get_state()", 0, base)] if self.has_pair else []
        search = Search(self.known)
        search.run(self.layers)
        self.places: list[Place] = [*search.places, *fields]
        self._fields, self._field_guard = {id(place) for place in fields}, field_guard
        self._first = [(place, content_of(place, self.known)) for place in self.places]
        self.unheld: dict[str, str] = {}
        """Places that cannot be saved, with the type of what they hold."""
        self.shared = SharedState([], [])
        self._moving, self._of_spaces = search.moving, search.of_spaces
        self._samples: dict[int, list[Numbers]] = {}
        self._constants: dict[int, Content] = {}
        self._watch: Watch | None = None
        self.layout = StateLayout()
        self.is_settled = False

    def observe(self) -> None:
        """Looks at the environment after a reset or a step of the rehearsal."""
        if self._watch is None:
            self._begin_watch()
        while changed := self._look():
            self._promote(changed)
        writer, order = Writer(self.known), self._order()
        code, value = 0, 0
        ends = self._write([self.slots[index] for index in order], writer)
        for index, (code_end, value_end) in zip(order, ends, strict=True):
            numbers = Numbers(tuple(writer.codes[code:code_end]), writer.values[value:value_end])
            self._samples.setdefault(index, []).append(numbers)
            code, value = code_end, value_end
        self._drop_unheld()

    def settle(self) -> None:
        """Ends the rehearsal: each slot receives a segment, ``get_state()`` and ``state`` first."""
        self._forget_orphans()
        order = self._order()
        samples = [self._samples.get(index, []) for index in order]
        self.slots = [self.slots[index] for index in order]
        self.layout.begin(samples)
        self.is_settled = True
        self._samples.clear()
        self._rewatch()
        self.shared = SharedState([*self.known.objects, *self.known.things], self._moving)

    @property
    def size(self) -> int:
        """``S``, the number of entries of the array at the moment."""
        return self.layout.size

    def capture(self) -> list[float]:
        """The numbers ``[S]`` of the environment's present state.

        Raises:
            RequestError: something changed that cannot be saved.
        """
        while changed := self._look():
            self._promote(changed)
        self.shared.require_unchanged(self.name)
        writer = Writer(self.known)
        ends = self._write(self.slots, writer)
        return self.layout.row(writer.codes, writer.values, ends)

    def restore(self, saved: list[float]) -> None:
        """Writes captured numbers ``[S]`` back into the environment.

        An array that was captured before a slot was added is shorter; it has the constant there.
        """
        reading = new_reading(self.known)
        found: list[Any] = []
        for index, part in enumerate(self.layout.parts(saved)):
            if part is None:
                found.append(self._constant(index, reading.generators))
            else:
                values, read = part
                found.append(read(saved[values], reading))
        # get_state() comes first in the array and last here: it may hold moved numbers.
        for slot, value in zip(reversed(self.slots), reversed(found), strict=True):
            if not self.unheld or slot.name not in self.unheld:
                slot.write(value)

    def restore_first(self) -> None:
        """Puts all slots into the state before the first reset.

        If an object that the first reset made is state, all else is put back too, so that the next
        reset makes another one.
        """
        reading = new_reading(self.known)
        slots = {id(slot) for slot in self.slots}
        first = {id(place) for place, _ in self._first}
        whole = any(not isinstance(s, StatePair) and id(s) not in first for s in self.slots)
        found = [
            (place, content_value(content, reading))
            for place, content in self._first
            if content is not None
            and place.name not in self.unheld
            and (
                id(place) in slots
                or (whole and not are_same(content, self._constants.get(id(place))))
            )
        ]
        for place, value in found:
            place.write(value)

    def complete(self, saved: NDArray[np.float64]) -> NDArray[np.float64]:
        """Saved states ``[K, S]`` with the constants that they lack, so that these can be moved.

        Args:
            saved: ``[K, S]``, of now or captured before slots were added.
        """
        wide = np.pad(saved, ((0, 0), (0, max(0, self.size - saved.shape[1]))))
        for row in np.flatnonzero(self.layout.lack_slots(wide)):
            self.restore(saved[row].tolist())
            wide[row] = self.capture()
        return wide

    def require_constants(self) -> None:
        """Compares all constants, the large ones too.

        Raises:
            RequestError: a large one has changed, so that the states of several rows are mixed.
        """
        if self._watch is not None and (changed := self._watch.look_at_all_large()):
            self._refuse_large(changed[0])

    def require_readable(self, saved: NDArray[np.float64], path: str) -> None:
        """Reads states ``[N, S]`` that come from a file, without writing them anywhere.

        Raises:
            StateError: they are damaged, or of another environment.
        """
        if saved.shape[1] < self.layout.first_size:
            raise StateError(path, f"has {saved.shape[1]} columns, not {self.layout.first_size}")
        for row, numbers in enumerate(saved.tolist()):
            try:
                self._read(numbers)
            except Exception as error:  # damaged codes may call any of the known constructors
                raise StateError(f"{path}/{row}", "is no state of this environment") from error

    def _read(self, saved: list[float]) -> None:
        reading = new_reading(self.known)
        for index, part in enumerate(self.layout.parts(saved)):
            if part is None:
                self._constant(index, reading.generators)
            else:
                values, read = part
                read(saved[values], reading)

    def state_dict(self) -> dict[str, Any]:
        """What another process needs to read the arrays: the segments and the texts."""
        places = {id(place): index for index, place in enumerate(self.places)}
        return {
            "segments": [
                [
                    places.get(id(self.slots[s.slot]), -1),
                    len(s.are_floats),
                    s.codes.stop - s.codes.start,
                    s.are_floats.tolist(),
                ]
                for s in self.layout.segments
            ],
            "irrelevant": [
                places.get(id(self.slots[i]), -1) for i in sorted(self.layout.irrelevant)
            ],
            "texts": list(self.known.texts.values()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Lays the array out as in :meth:`state_dict`.

        Slots that were added after the rehearsal are put into the order in which they were added
        there, because what is shared is numbered in this order. Their floats become
        :attr:`StateLayout.late_floats`.

        Raises:
            RequestError: the environment is another.
            StateError: the state is damaged.
        """
        require(state, self._schema())
        first = self.layout.num_first
        mine, theirs = self.state_dict()["segments"], state.get("segments", [])
        if [s[:3] for s in mine[:first]] != [s[:3] for s in theirs[:first]]:
            raise RequestError(
                f"the saved states are of another {self.name}, or of an earlier version of this "
                "package: its attributes are others now. Start a new run"
            )
        for known in state["texts"]:
            self.known.text_code(known)
        self._reorder([self.places[place] for place, *_ in theirs[first:] if place >= 0])
        slots = {id(slot) for slot in self.slots}
        for row, place in enumerate(state["irrelevant"]):
            if place >= 0 and id(self.places[place]) not in slots:
                raise StateError(f"irrelevant/{row}", "is the number of another place")
        places = {id(slot): index for index, slot in enumerate(self.slots)}
        self.layout.irrelevant = {i for i in self.layout.irrelevant if i < first} | {
            places[id(self.places[place])] for place in state["irrelevant"] if place >= 0
        }
        for place, values, codes, floats in theirs[first:]:
            index = places[id(self.places[place])] if place >= 0 else 0
            segment = self.layout.add_segment(index, values, codes)
            segment.are_floats |= np.array(floats, dtype=bool)
            self.layout.note_late(segment)
        self._rewatch()

    def _schema(self) -> Schema:
        """What :meth:`state_dict` returns; places are numbers from -1."""
        place, size = integer(-1, len(self.places) - 1), integer(0, MAX_SIZE)
        names = ("place", "values", "codes", "are_floats")
        segment = items([place, size, size, series(flag)], names)

        def segments(value: Any, path: str) -> None:
            series(segment)(value, path)
            for row, (_, values, _, floats) in enumerate(value):
                series(anything, values, values)(floats, f"{path}/{row}/are_floats")
            total = sum(values + codes for _, values, codes, _ in value)
            integer(0, MAX_SIZE)(total, f"{path} (the size of a saved state)")

        schemas = {"segments": segments, "irrelevant": series(place), "texts": series(text)}
        return entries(schemas, absent=("segments",))

    def _reorder(self, late: list[Place]) -> None:
        """Drops the segments of slots that were added late, and puts these into another order."""
        first = self.slots[: self.layout.num_first]
        ordered = {id(slot): slot for slot in (*first, *late, *self.slots)}
        self.slots = list(ordered.values())
        self.layout.restart(len(self.slots))

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles make their watch anew; it begins with the same constants."""
        fields = [place for place in self.places if id(place) in self._fields]
        rest = {"_watch": None, "_constants": None, "_fields": fields}
        return vars(self) | rest | {"_copied": self._constant_list()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        copied = state.pop("_copied")
        vars(self).update(state)
        self._fields = {id(place) for place in state["_fields"]}
        self._constants = {id(place): numbers for place, numbers in copied}
        # A copied array that was a part of another one has memory of its own now.
        owners = {id(getattr(place, "owner", None)) for place in self.places}
        for value in self.known.objects:
            alone = isinstance(value, np.ndarray) and holds_content(value)
            if alone and id(value) not in owners:
                self.places.append(ContentPlace("a part of another array", 0, value))
        if self.is_settled:
            self._rewatch()

    def _constant_list(self) -> list[tuple[Place, Content]]:
        return [(p, self._constants[id(p)]) for p in self.places if id(p) in self._constants]

    def _begin_watch(self) -> None:
        """Searches again, because a first reset makes much, and takes the constants of now."""
        search = Search(self.known)
        search.run(self.layers)
        self.places += search.places
        self._moving += search.moving
        self._of_spaces += search.of_spaces
        self._take_new_names()
        self._rewatch()

    def _take_new_names(self) -> None:
        """Makes each attribute that an object has received a place of its own."""
        for place in [p for p in self.places if isinstance(p, NewAttributesPlace)]:
            for key in list(vars(place.owner)):
                if key not in place.names and key not in IGNORED_ATTRIBUTES:
                    place.names.add(key)
                    name = place.name[:-1] + key
                    added = AttributePlace(name, place.layer, place.owner, key)
                    self.places.append(added)
                    self._first.append((added, Numbers(*_ABSENT_NUMBERS)))
                    self._constants.pop(id(added), None)

    def _rewatch(self) -> None:
        """Watches all places that are neither slots nor unheld, with the contents of now."""
        left_out = {id(slot) for slot in self.slots}
        if self.is_settled:
            # Others may sample from spaces; an environment that does so has shown it by now.
            left_out |= {id(place) for place in self._of_spaces}
        watched = [p for p in self.places if id(p) not in left_out and p.name not in self.unheld]
        for place in watched:
            if id(place) not in self._constants:
                self._constants[id(place)] = content_of(place, self.known)
        fields = [place for place in watched if id(place) in self._fields]
        self._watch = Watch([p for p in watched if id(p) not in self._fields], self.known)
        if self._field_guard is not None and fields:
            self._watch.small.append(self._field_guard(fields))

    def _look(self) -> list[Place]:
        """The constants that have changed; during the rehearsal all large ones are compared too."""
        assert self._watch is not None, "the watch begins with the first observation"
        changed = self._watch.look()
        if not self.is_settled:
            return [*changed, *self._watch.look_at_all_large()]
        for place in self._watch.look_at_large():
            self._refuse_large(place)
        return changed

    def _promote(self, changed: list[Place]) -> None:
        """Makes slots of the places."""
        if not self.is_settled and any(isinstance(p, NewAttributesPlace) for p in changed):
            before = len(self.places)
            self._take_new_names()
            changed = [p for p in changed if not isinstance(p, NewAttributesPlace)]
            for place in self.places[before:]:
                self._constants[id(place)] = Numbers(*_ABSENT_NUMBERS)
            changed += self.places[before:]
        for place in changed:
            if content_numbers(place, self.known) is None:
                self._refuse(place)
            else:
                self._slot_of(place)
        self._rewatch()

    def _slot_of(self, place: Place) -> int:
        """The index of the place's slot, which is made if it has none."""
        for index, slot in enumerate(self.slots):
            if slot is place:
                return index
        self.slots.append(place)
        if self.is_settled:
            self.layout.add_slot()
        else:
            constant = self._constants.get(id(place))
            if isinstance(constant, Numbers):
                self._samples[len(self.slots) - 1] = [constant]
        return len(self.slots) - 1

    def _constant(self, index: int, generators: list[Any]) -> Any:
        # What was rebuilt for other slots is not counted, because the array was written without it.
        content = self._constants[id(self.slots[index])]
        return content_value(content, Reading(self.known, [], generators))

    def _order(self) -> list[int]:
        """The indices of the slots, in the order of the array."""

        def key(index: int) -> tuple[bool, bool, int, str]:
            slot = self.slots[index]
            return slot.name != "get_state()", slot.name != "state", slot.layer, slot.name

        return sorted(range(len(self.slots)), key=key)

    def _write(self, slots: Sequence[Slot], writer: Writer) -> list[tuple[int, int]]:
        """Writes all slots; returns how many codes and values there are after each."""
        ends: list[tuple[int, int]] = []
        for slot in slots:
            try:
                slot.put(writer)
            except UnheldError as error:
                self._refuse(slot, error.kind)
                num_codes, num_values = ends[-1] if ends else (0, 0)
                del writer.codes[num_codes:], writer.values[num_values:]
                writer.put(ABSENT)
            ends.append((len(writer.codes), len(writer.values)))
        return ends

    def _refuse(self, slot: Slot, kind: str | None = None) -> None:
        """Leaves a place that cannot be saved alone during the rehearsal; refuses it later."""
        kind = kind or type(slot.read()).__name__
        if self.is_settled and not (self.has_pair and slot.layer == 0):
            raise RequestError(
                f"{self.name}.{slot.name} has become a {kind}, which cannot be saved and restored: "
                f"the environments of a batch would share it. {KEEP_ADVICE}"
            )
        self.unheld[slot.name] = kind

    def _drop_unheld(self) -> None:
        if not any(slot.name in self.unheld for slot in self.slots):
            return
        self._keep_slots([i for i, s in enumerate(self.slots) if s.name not in self.unheld])
        self._rewatch()

    def _refuse_large(self, place: Place) -> None:
        raise RequestError(
            f"{self.name}.{place.name} has changed late. It is too large to be compared at every "
            "step, so the environments of a batch may have shared it. Make it smaller, change it "
            "in the first steps of an episode so that it is known as state, or use --differentiate "
            "model or none"
        )

    def _forget_orphans(self) -> None:
        """Drops the places of objects that the first reset made and a later one replaced."""
        search = Search(KnownObjects())
        search.run(self.layers)
        first = {id(place) for place, _ in self._first}

        def stays(place: Slot) -> bool:
            owner = getattr(place, "owner", getattr(place, "function", None))
            return isinstance(place, StatePair) or id(place) in first or id(owner) in search.reached

        self.places = [place for place in self.places if stays(place)]
        kept = [index for index, slot in enumerate(self.slots) if stays(slot)]
        self._keep_slots(kept)

    def _keep_slots(self, kept: list[int]) -> None:
        """Drops all slots but these."""
        self._samples = {new: self._samples[old] for new, old in enumerate(kept)}
        self.slots = [self.slots[index] for index in kept]


def has_get_and_set_state(base: Any) -> bool:
    """Both are needed: ``MujocoEnv`` has only a ``set_state(qpos, qvel)``."""
    return all(callable(getattr(base, name, None)) for name in ("get_state", "set_state"))


def stack_rows(rows: Sequence[Any], size: int) -> NDArray[np.float64]:
    """Rows as one array ``[K, size]``; shorter ones are filled with zeros."""
    if rows and all(len(row) == size for row in rows):
        return np.array(rows, dtype=np.float64)
    found = np.zeros((len(rows), size))
    for index, row in enumerate(rows):
        found[index, : len(row)] = row
    return found


def _absent_numbers() -> tuple[tuple[int, ...], list[float]]:
    writer = Writer(KnownObjects())
    writer.put(ABSENT)
    return tuple(writer.codes), []


_ABSENT_NUMBERS = _absent_numbers()
