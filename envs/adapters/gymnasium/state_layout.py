"""Where the array of a saved state holds the content of each slot.

``S`` is the size of the array. It grows when a slot is added or outgrows its room.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.pytree_codes import UNSAVED, Numbers
from pgtoolkit.envs.adapters.gymnasium.pytree_floats import are_floats
from pgtoolkit.envs.adapters.gymnasium.pytree_reader import Read, compiled_reader

MAX_REMEMBERED = 1 << 20
"""So many entries of rows, and codes of rows, are remembered in :class:`StateLayout`."""


@final
@dataclasses.dataclass(eq=False)
class Segment:
    """A part of the array with room for the content of one slot."""

    slot: int
    """The index of the slot."""
    values: slice
    codes: slice
    are_floats: NDArray[np.bool_]
    """For each value, whether it was ever seen as a floating-point number."""
    seen: set[tuple[int, ...]] = dataclasses.field(default_factory=set)
    """The codes that were stored here."""

    def fits(self, num_codes: int, num_values: int) -> bool:
        room = self.values.stop - self.values.start, self.codes.stop - self.codes.start
        return bool(num_values <= room[0] and num_codes <= room[1])

    def mark_floats(self, codes: tuple[int, ...]) -> None:
        """Notes which values are floats by codes that may not have been seen here."""
        if codes not in self.seen:
            self.seen.add(codes)
            marks = np.array(are_floats(codes), dtype=bool)
            self.are_floats[: len(marks)] |= marks


class Form(NamedTuple):
    """How a row of the array is made from the numbers of all slots, for given codes."""

    blank: list[float]
    """The row with these codes and no values."""
    moves: list[tuple[slice, slice]]
    """Where values go in the row, and where they come from."""


Part: TypeAlias = tuple[slice, Read] | None
"""Where a row has a slot's values, and what rebuilds the content; None if it has none."""


@final
class StateLayout:
    """The segments of the array, in their order.

    First :meth:`begin` lays out the slots of the rehearsal. Slots that are added later, and
    contents that outgrow their room, receive further segments at the end.
    """

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.of_slot: list[list[Segment]] = []
        self.size = 0
        """``S``, the number of entries of the array at the moment."""
        self.num_first = 0
        """The number of slots of the rehearsal."""
        self.late_floats: list[int] = []
        """Entries of slots that were added after :meth:`end_proof`, if they are floats."""
        self.irrelevant: set[int] = set()
        """Indices of slots on which nothing depends."""
        self._is_proved = False
        self._forms: dict[tuple[int, ...], Form] = {}
        self._parts: dict[tuple[tuple[float, ...], ...], Sequence[Part]] = {}
        self._last: tuple[list[list[float]] | None, Sequence[Part]] = None, ()
        """The codes that :meth:`parts` was given last, and what it returned."""
        self._codes: list[slice] = []
        """Where the array holds codes."""

    def __getstate__(self) -> dict[str, Any]:
        """Functions that were compiled from codes are compiled anew in a copy."""
        return vars(self) | {"_forms": {}, "_parts": {}, "_last": (None, ())}

    def begin(self, samples: Sequence[Sequence[Numbers]]) -> None:
        """Gives each slot a segment with room for all of its samples: all values, then all codes.

        Args:
            samples: contents of each slot.
        """
        sizes = [_room(of_slot) for of_slot in samples]
        value, code = 0, sum(values for values, _ in sizes)
        for index, (values, codes) in enumerate(sizes):
            marks = np.zeros(values, dtype=bool)
            place = slice(value, value + values), slice(code, code + codes)
            segment = Segment(index, *place, marks)
            value, code = value + values, code + codes
            for numbers in samples[index]:
                segment.mark_floats(numbers.codes)
            self.of_slot.append([segment])
            self.segments.append(segment)
        self.size, self.num_first = code, len(samples)
        self._forget()

    def restart(self, num_slots: int) -> None:
        """Drops the segments of slots that were added late; there are ``num_slots`` slots now."""
        self.size = self.first_size
        self.segments = self.segments[: self.num_first]
        self.of_slot = [[segment] for segment in self.segments]
        self.of_slot += [[] for _ in range(num_slots - self.num_first)]
        self._forget()

    def end_proof(self, irrelevant: Iterable[int]) -> None:
        """From now on, the floats of new slots are differentiated.

        Args:
            irrelevant: indices of slots that are not, however much they grow.
        """
        self.irrelevant, self._is_proved = set(irrelevant), True

    @property
    def first_size(self) -> int:
        """The number of entries that were laid out after the rehearsal."""
        return self.segments[self.num_first - 1].codes.stop if self.num_first else 0

    @property
    def are_floats(self) -> NDArray[np.bool_]:
        """For each value of all slots, whether it was ever observed as a floating-point number."""
        return np.concatenate([*(s.are_floats for s in self.segments), np.zeros(0, dtype=bool)])

    def float_entries(self, index: int) -> NDArray[np.intp]:
        """Indices into the array of a slot's floating-point numbers."""
        found = [np.flatnonzero(s.are_floats) + s.values.start for s in self.of_slot[index]]
        return np.concatenate([*found, np.zeros(0, dtype=np.intp)])

    def add_slot(self) -> None:
        """Notes a further slot, which receives a segment when it is stored first."""
        self.of_slot.append([])
        self._forget()

    def add_segment(self, index: int, values: int, codes: int) -> Segment:
        """A further segment of a slot, with room for so many values and codes."""
        middle = self.size + values
        segment = Segment(
            index,
            slice(self.size, middle),
            slice(middle, middle + codes),
            np.zeros(values, dtype=bool),
        )
        self.of_slot[index].append(segment)
        self.segments.append(segment)
        self.size = middle + codes
        self._forget()
        return segment

    def note_late(self, segment: Segment) -> None:
        """Has the floats of a segment differentiated, if its slot was found late and matters."""
        if self._is_proved and segment.slot not in self.irrelevant:
            entries = (np.flatnonzero(segment.are_floats) + segment.values.start).tolist()
            self.late_floats += [entry for entry in entries if entry not in self.late_floats]

    def row(
        self, codes: list[int], values: list[float], ends: list[tuple[int, int]]
    ) -> list[float]:
        """The array ``[S]`` of the contents of all slots.

        Args:
            codes: the codes of all slots, one after another.
            values: their values.
            ends: for each slot, how many codes and values there are up to its last one.
        """
        # Codes say where they end, so all together say which belong to which slot.
        key = tuple(codes)
        form = self._forms.get(key)
        if form is None:
            form = self._form(key, ends)
            if len(self._forms) * self.size > MAX_REMEMBERED:
                self._forms.clear()
            self._forms[key] = form
        row = form.blank.copy()
        for to, source in form.moves:
            row[to] = values[source]
        return row

    def parts(self, saved: list[float]) -> Sequence[Part]:
        """For each slot, where a saved state ``[S]`` has it; one of before may be shorter."""
        found = [saved[codes] for codes in self._codes]
        if found == self._last[0]:
            return self._last[1]
        key = tuple(map(tuple, found))
        parts = self._parts.get(key)
        if parts is None:
            if len(self._parts) * self.size > MAX_REMEMBERED:
                self._parts.clear()
            parts = self._parts[key] = [_part(segments, saved) for segments in self.of_slot]
        self._last = found, parts
        return parts

    def lack_slots(self, saved: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the states ``[K, S]`` hold nothing for one of the slots that were added late."""
        lacking = np.zeros(len(saved), dtype=bool)
        for segments in filter(None, self.of_slot[self.num_first :]):
            codes = np.stack([saved[:, s.codes.start] for s in segments])
            lacking |= (codes == UNSAVED).all(0)
        return lacking

    def _form(self, codes: tuple[int, ...], ends: list[tuple[int, int]]) -> Form:
        pieces: list[tuple[Segment, slice, slice]] = []
        code, value = 0, 0
        for index, (code_end, value_end) in enumerate(ends):
            segment = self._segment(index, codes[code:code_end], value_end - value)
            pieces.append((segment, slice(code, code_end), slice(value, value_end)))
            code, value = code_end, value_end
        blank: list[float] = [0.0] * self.size
        moves: list[tuple[slice, slice]] = []
        for segment, of_codes, of_values in pieces:
            start = segment.codes.start
            blank[start : start + of_codes.stop - of_codes.start] = codes[of_codes]
            start = segment.values.start
            _add_move(moves, slice(start, start + of_values.stop - of_values.start), of_values)
        return Form(blank, moves)

    def _segment(self, index: int, codes: tuple[int, ...], num_values: int) -> Segment:
        """A segment of the slot with enough room; floats in new entries are noted."""
        for segment in self.of_slot[index]:
            if segment.fits(len(codes), num_values):
                break
        else:
            grown = 1 if not self.of_slot[index] else 2
            segment = self.add_segment(index, grown * num_values, grown * len(codes))
        if codes not in segment.seen:
            before = segment.are_floats.copy()
            segment.mark_floats(codes)
            if (before != segment.are_floats).any():
                self.note_late(segment)
        return segment

    def _forget(self) -> None:
        """Forgets what was remembered of another layout."""
        self._forms, self._parts, self._last = {}, {}, (None, ())
        first, late = self.segments[: self.num_first], self.segments[self.num_first :]
        together = [slice(first[0].codes.start, first[-1].codes.stop)] if first else []
        self._codes = [*together, *(segment.codes for segment in late)]


def _part(segments: Sequence[Segment], saved: list[float]) -> Part:
    for segment in segments:
        codes = saved[segment.codes]
        if codes and codes[0] != UNSAVED:
            return segment.values, compiled_reader(tuple(codes))
    return None


def _add_move(moves: list[tuple[slice, slice]], to: slice, source: slice) -> None:
    """Adds a move of values, as a part of the last one if it continues that."""
    if moves and moves[-1][0].stop == to.start and moves[-1][1].stop == source.start:
        before = moves.pop()
        to, source = slice(before[0].start, to.stop), slice(before[1].start, source.stop)
    if to.stop > to.start:
        moves.append((to, source))


def _room(samples: Sequence[Numbers]) -> tuple[int, int]:
    values = max((len(numbers.values) for numbers in samples), default=0)
    return values, max((len(numbers.codes) for numbers in samples), default=1)
