"""A layered layout of an acyclic graph: rows, order and positions (Sugiyama et al. 1981)."""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple, TypeVar, final

N = TypeVar("N", bound=Hashable)

ORDER_SWEEPS = 24
"""Sweeps over the rows that reduce the number of crossing arrows."""
PULL = (1.0, 2.0, 8.0)
"""Weights of neighbours in a position: of two nodes, a node and a bend, and two bends."""
POSITION_SWEEPS = 60
"""Sweeps over the rows that move each node towards its neighbours."""


@final
class Bend(NamedTuple):
    """The point at which an arrow crosses a row between the rows of its two ends."""

    start: Hashable
    end: Hashable
    row: int


@final
class Layout(NamedTuple):
    """Position of every node, and of every bend of every arrow."""

    rows: list[list[Hashable]]
    """Nodes and bends of each row from left to right; row 0 is the lowest."""
    x: dict[Hashable, float]
    """Horizontal centre of each node and bend."""
    paths: list[list[Hashable]]
    """Each arrow from its upper end to its lower one, with its bends."""


def longest_path_rows(graph: Mapping[N, set[N]]) -> dict[N, int]:
    """The row of each node: one above the highest node that it points to."""
    rows: dict[N, int] = {}

    def row(node: N) -> int:
        if node not in rows:
            rows[node] = 1 + max((row(other) for other in graph[node]), default=-1)
        return rows[node]

    for node in graph:
        row(node)
    return rows


def arrange(
    graph: Mapping[N, set[N]], row_of: Mapping[N, int], widths: tuple[float, float]
) -> Layout:
    """Orders the rows so that few arrows cross, and places the nodes.

    Args:
        graph: each node with the nodes that it points to, all of which lie lower.
        row_of: row of each node.
        widths: horizontal room of a node and of a bend.
    """
    paths: list[list[Hashable]] = []
    for start, others in graph.items():
        for end in sorted(others, key=str):
            between = range(row_of[start] - 1, row_of[end], -1)
            paths.append([start, *(Bend(start, end, row) for row in between), end])
    rows: list[list[Hashable]] = [[] for _ in range(max(row_of.values()) + 1)]
    for node in sorted(graph, key=str):
        rows[row_of[node]].append(node)
    for path in paths:
        for bend in path[1:-1]:
            assert isinstance(bend, Bend)
            rows[bend.row].append(bend)
    pairs = [pair for path in paths for pair in itertools.pairwise(path)]
    rows = order(rows, pairs)
    return Layout(rows, place(rows, pairs, widths), paths)


def order(
    rows: list[list[Hashable]], pairs: Sequence[tuple[Hashable, Hashable]]
) -> list[list[Hashable]]:
    """Sorts each row by the mean position of its neighbours; keeps the order with least crossings.

    Args:
        rows: nodes and bends of each row.
        pairs: neighbours (upper, lower) in adjacent rows.
    """
    best, fewest = rows, crossings(rows, pairs)
    for sweep in range(ORDER_SWEEPS):
        down = sweep % 2 == 0
        rank = {node: place for row in rows for place, node in enumerate(row)}
        rows = [list(row) for row in rows]
        for row in reversed(rows) if down else rows:
            centre = {node: _mean(_neighbours(node, pairs, down), rank) for node in row}
            row.sort(key=centre.__getitem__)
            rank |= {node: place for place, node in enumerate(row)}
        if (number := crossings(rows, pairs)) < fewest:
            best, fewest = rows, number
    return best


def _neighbours(
    node: Hashable, pairs: Sequence[tuple[Hashable, Hashable]], above: bool
) -> list[Hashable]:
    found = [pair[0] for pair in pairs if pair[1] == node] if above else []
    found += [pair[1] for pair in pairs if pair[0] == node] if not above else []
    return found or [node]


def _mean(nodes: Sequence[Hashable], position: Mapping[Hashable, float]) -> float:
    return fmean(position[node] for node in nodes)


def crossings(
    rows: Sequence[Sequence[Hashable]], pairs: Sequence[tuple[Hashable, Hashable]]
) -> int:
    """Number of crossings of straight lines between adjacent rows."""
    at = {
        node: (number, place) for number, row in enumerate(rows) for place, node in enumerate(row)
    }
    lines = [(at[upper][0], at[upper][1], at[lower][1]) for upper, lower in pairs]
    return sum(
        a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0
        for number, a in enumerate(lines)
        for b in lines[:number]
    )


def place(
    rows: Sequence[Sequence[Hashable]],
    pairs: Sequence[tuple[Hashable, Hashable]],
    widths: tuple[float, float],
) -> dict[Hashable, float]:
    """Horizontal centres: near the neighbours' mean, and as far apart as the widths ask.

    Args:
        rows: nodes and bends of each row, in order.
        pairs: neighbours (upper, lower) in adjacent rows.
        widths: horizontal room of a node and of a bend.
    """
    room = {node: widths[isinstance(node, Bend)] for row in rows for node in row}
    x: dict[Hashable, float] = {}
    for row in rows:
        x |= spread([0.0] * len(row), row, room)
    for sweep in range(POSITION_SWEEPS):
        for row in rows if sweep % 2 else reversed(rows):
            x |= spread([_centre(node, pairs, x) for node in row], row, room)
    return x


def _centre(
    node: Hashable, pairs: Sequence[tuple[Hashable, Hashable]], x: Mapping[Hashable, float]
) -> float:
    """The mean of a node's neighbours; two bends pull most, so that long arrows are straight."""
    near = {*_neighbours(node, pairs, True), *_neighbours(node, pairs, False)}
    pulls = [PULL[isinstance(node, Bend) + isinstance(other, Bend)] for other in near]
    return fmean([x[other] for other in near], pulls)


def spread(
    wanted: Sequence[float], row: Sequence[Hashable], room: Mapping[Hashable, float]
) -> dict[Hashable, float]:
    """Positions near the wanted ones that keep the order and leave every node its room.

    The mean of the solution that only moves nodes to the right and of the one that only moves them
    to the left; both keep the distances, so their mean does.
    """
    gaps = [(room[a] + room[b]) / 2 for a, b in itertools.pairwise(row)]
    right, left = list(wanted), list(wanted)
    for i, gap in enumerate(gaps):
        right[i + 1] = max(right[i + 1], right[i] + gap)
    for i, gap in reversed(list(enumerate(gaps))):
        left[i] = min(left[i], left[i + 1] - gap)
    return {node: (a + b) / 2 for node, a, b in zip(row, right, left, strict=True)}
