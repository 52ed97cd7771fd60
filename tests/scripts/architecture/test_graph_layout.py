"""Tests of the layered layout of a graph."""

from itertools import pairwise

import pytest

from pgtoolkit.scripts.architecture.graph_layout import (
    Bend,
    arrange,
    crossings,
    longest_path_rows,
    order,
    spread,
)

GRAPH = {"top": {"left", "bottom"}, "left": {"bottom"}, "right": {"bottom"}, "bottom": set()}


def test_every_arrow_points_down() -> None:
    """A node is one row above the highest node that it points to."""
    assert longest_path_rows(GRAPH) == {"top": 2, "left": 1, "right": 1, "bottom": 0}


def test_an_arrow_over_several_rows_has_a_bend_in_each_row_between() -> None:
    """Neighbours in a row are far enough apart for nodes and bends."""
    layout = arrange(GRAPH, longest_path_rows(GRAPH), (2.0, 0.5))
    assert ["top", Bend("top", "bottom", 1), "bottom"] in layout.paths
    for row in layout.rows:
        for a, b in pairwise(row):
            bends = isinstance(a, Bend) + isinstance(b, Bend)
            assert layout.x[b] - layout.x[a] >= (2.0, 1.25, 0.5)[bends] - 1e-9


def test_crossings_are_counted_and_removed() -> None:
    """Two arrows that cross are uncrossed by another order of the upper row."""
    rows, pairs = [["a", "b"], ["c", "d"]], [("c", "b"), ("d", "a")]
    assert crossings(rows, pairs) == 1
    assert crossings(order([list(row) for row in rows], pairs), pairs) == 0


def test_positions_keep_the_order_and_the_distance() -> None:
    """Three nodes that want one place stand side by side around it."""
    found = spread([1.0, 1.0, 1.0], "abc", dict.fromkeys("abc", 2.0))
    assert list(found.values()) == pytest.approx([-1.0, 1.0, 3.0])
