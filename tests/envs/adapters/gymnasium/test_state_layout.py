"""Rows of the array give back what was put into them, however the layout grows."""

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pgtoolkit.envs.adapters.gymnasium import state_layout
from pgtoolkit.envs.adapters.gymnasium.known_objects import KnownObjects
from pgtoolkit.envs.adapters.gymnasium.pytree_codes import Numbers
from pgtoolkit.envs.adapters.gymnasium.pytree_reader import new_reading
from pgtoolkit.envs.adapters.gymnasium.pytree_writer import Writer, flatten
from pgtoolkit.envs.adapters.gymnasium.state_layout import StateLayout

KNOWN = KnownObjects()


def numbers_of(tree: Any) -> Numbers:
    found = flatten(tree, KNOWN)
    assert found is not None
    return found


def row_of(layout: StateLayout, *trees: Any) -> list[float]:
    writer, ends = Writer(KNOWN), []
    for tree in trees:
        writer.put(tree)
        ends.append((len(writer.codes), len(writer.values)))
    return layout.row(writer.codes, writer.values, ends)


def trees_in(layout: StateLayout, row: list[float]) -> list[Any]:
    reading = new_reading(KNOWN)
    parts = layout.parts(row)
    return ["nothing" if p is None else p[1](row[p[0]], reading) for p in parts]


def begun(*samples: Sequence[Any]) -> StateLayout:
    layout = StateLayout()
    layout.begin([[numbers_of(tree) for tree in trees] for trees in samples])
    return layout


def test_all_values_come_before_all_codes() -> None:
    layout = begun([(1.5, 2.5)], [3.5])
    row = row_of(layout, (1.5, 2.5), 3.5)
    assert row[:3] == [1.5, 2.5, 3.5] and len(row) == layout.size == layout.first_size
    assert layout.are_floats.tolist() == [True, True, True]


def test_rows_of_several_forms_in_turns_come_back() -> None:
    layout = begun([None, 1.0], [[1, 2]], ["a"])
    contents: list[list[Any]] = [
        [None, [1, 2], "a"],
        [0.5, [3, 4], "b"],
        [None, [], "a"],
        [2.5, [7, 8], "b"],
    ]
    rows = [row_of(layout, *trees) for trees in contents * 2]
    assert [trees_in(layout, row) for row in rows] == contents * 2
    assert rows[:4] == rows[4:]


def test_a_content_that_outgrows_its_room_receives_another_segment() -> None:
    layout = begun([[1.0]], [2])
    before = row_of(layout, [1.0], 2)
    after = row_of(layout, [0.5, 1, 2.5], 2)
    assert len(after) == layout.size > len(before)
    assert trees_in(layout, before) == [[1.0], 2] and trees_in(layout, after) == [[0.5, 1, 2.5], 2]
    # What was remembered of the smaller layout is not used again.
    assert len(row_of(layout, [1.0], 2)) == layout.size
    assert len(layout.float_entries(0)) == 3


def test_rows_of_before_hold_nothing_for_a_slot_that_was_added() -> None:
    layout = begun([1.0])
    before = row_of(layout, 1.0)
    assert trees_in(layout, before) == [1.0]
    layout.end_proof(irrelevant=())
    layout.add_slot()
    assert trees_in(layout, before) == [1.0, "nothing"]
    after = row_of(layout, 1.0, 4.5)
    assert trees_in(layout, after) == [1.0, 4.5]
    assert [after[entry] for entry in layout.late_floats] == [4.5]
    padded = np.array([[*before, *[0.0] * (len(after) - len(before))], after])
    assert layout.lack_slots(padded).tolist() == [True, False]


def test_a_layout_without_slots_notes_the_first_one() -> None:
    layout = begun()
    assert trees_in(layout, row_of(layout)) == []
    layout.add_slot()
    assert trees_in(layout, []) == ["nothing"]


def test_copies_read_the_same_rows() -> None:
    layout = begun([1.0], [(1, None)])
    row = row_of(layout, 1.5, (3, None))
    assert trees_in(layout, row) == [1.5, (3, None)]
    for copied in (copy.deepcopy(layout), pickle.loads(pickle.dumps(layout))):
        assert trees_in(copied, row) == [1.5, (3, None)]
        assert row_of(copied, 1.5, (3, None)) == row


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_layout, "MAX_REMEMBERED", 100)
    layout = begun([[0.5] * 9], [None])
    for size in [*range(9), *range(9)]:
        row = row_of(layout, [0.5] * size, None)
        assert trees_in(layout, row) == [[0.5] * size, None]
    assert len(layout._forms) * layout.size <= 200 and len(layout._parts) * layout.size <= 200
