"""``scripts/studies/architecture_picture.py --output FILE.png``: draws the imports between folders.

The picture of ``docs/architecture.md``, made from the source. An arrow leads from the folder that
imports to the folder that it imports from. Arrows that a longer way implies are left out.
"""

import dataclasses
import itertools
import textwrap
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, final

import pgtoolkit
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.architecture.graph_layout import Layout, arrange, longest_path_rows
from pgtoolkit.scripts.architecture.import_graph import (
    BESIDE,
    LAYERS,
    Box,
    Graph,
    box_graph,
    describe,
    read_imports,
    transitive_reduction,
)
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.files import require_picture

COLOURS = {"pgtoolkit": "#1f69b4", "envs": "#2c8c46", "agents": "#8a4fb0", "scripts": "#d6601e"}
"""Colour of each layer's boxes and of the arrows that leave them."""
BOX_SIZE = (2.95, 1.2)
"""Width and height of a box, in inches."""
BOX_ROOM, BEND_ROOM, ROW_HEIGHT = 3.12, 0.26, 1.6
"""Horizontal room of a box and of an arrow that passes a row, and the distance of rows, in inches.
"""
MARGIN = 0.2
CAPTION_WIDTH, CAPTION_LINES = 36, 4
"""Characters in a line of a box's caption, and lines that a box has room for."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchitectureArguments:
    """Draws the package's folders, and arrows for the imports between them."""

    output: Path
    """File for the picture: .png, .svg or .pdf."""


def run(arguments: Sequence[str]) -> None:
    """Reads the imports and writes the picture.

    Raises:
        RequestError: matplotlib is not installed, or the file cannot be written.
    """
    options = parse(ArchitectureArguments, arguments, command="studies/architecture_picture")
    require_picture(options.output, "--output")
    package = Path(pgtoolkit.__file__).parent
    graph = folder_graph(package)
    figure = draw(graph, package)
    try:
        figure.savefig(options.output, dpi=110, metadata={"Keywords": arrows_text(graph)})
    except (OSError, ValueError) as error:
        raise RequestError(f"{options.output} cannot be written: {error}") from error
    print(options.output)


def folder_graph(package: Path) -> Graph:
    """The boxes of the picture with the boxes that their arrows lead to."""
    return transitive_reduction(box_graph(read_imports(package)))


def arrows_text(graph: Graph) -> str:
    """All arrows, one a line. It is saved in the picture, so that a test sees if it is outdated."""
    arrows = ((f"{a.layer}/{a.name}", f"{b.layer}/{b.name}") for a in graph for b in graph[a])
    return "\n".join(f"{start} -> {end}" for start, end in sorted(arrows))


def draw(graph: Graph, package: Path) -> Any:
    """A matplotlib figure of the folders and their imports.

    Args:
        graph: a result of :func:`folder_graph`.
        package: folder of the package ``pgtoolkit``.
    """
    from matplotlib.figure import Figure

    row_of = stacked_rows(graph)
    layout = arrange(graph, row_of, (BOX_ROOM, BEND_ROOM))
    low, high = min(layout.x.values()), max(layout.x.values())
    left, right = low - BOX_ROOM / 2 - 0.3, high + BOX_ROOM / 2
    height = len(layout.rows) * ROW_HEIGHT
    figure = Figure(figsize=(right - left + 2 * MARGIN, height + 2 * MARGIN))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left - MARGIN, right + MARGIN), ylim=(-MARGIN, height + MARGIN))
    axes.axis("off")
    for layer in LAYERS:
        rows = [row for box, row in row_of.items() if box.layer == layer]
        _draw_layer(axes, layer, (min(rows), max(rows)), (left, right))
    for path in layout.paths:
        _draw_arrow(axes, path, layout, row_of)
    for box in graph:
        _draw_box(axes, box, describe(package, box, graph), layout.x[box], row_of[box])
    return figure


def stacked_rows(graph: Graph) -> dict[Box, int]:
    """The row of each box; every layer begins above the highest row of the layer below it."""
    rows: dict[Box, int] = {}
    for layer in LAYERS:
        inside = {
            box: {b for b in graph[box] if b.layer == layer} for box in graph if box.layer == layer
        }
        base = max(rows.values(), default=-1) + 1
        rows |= {box: base + row for box, row in longest_path_rows(inside).items()}
    return rows


def _draw_layer(axes: Any, layer: str, rows: tuple[int, int], sides: tuple[float, float]) -> None:
    """A tinted band behind the rows of a layer, with its name."""
    from matplotlib.patches import FancyBboxPatch

    (left, right), (low, high) = sides, rows
    bottom, top = low * ROW_HEIGHT + 0.05, (high + 1) * ROW_HEIGHT - 0.05
    band = FancyBboxPatch(
        (left, bottom),
        right - left,
        top - bottom,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=COLOURS[layer],
        edgecolor="none",
        alpha=0.09,
        zorder=0,
    )
    axes.add_patch(band)
    name = layer if layer == LAYERS[0] else f"{layer}/"
    axes.text(
        left + 0.22,
        (top + bottom) / 2,
        name,
        rotation=90,
        ha="center",
        va="center",
        fontsize=19,
        fontweight="bold",
        color=COLOURS[layer],
    )


def _draw_box(axes: Any, box: Box, caption: str, x: float, row: int) -> None:
    """A white box with the folder's name and what it holds."""
    from matplotlib.patches import FancyBboxPatch

    (width, height), y = BOX_SIZE, (row + 0.5) * ROW_HEIGHT
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor="white",
        edgecolor=COLOURS[box.layer],
        linewidth=1.2,
        zorder=3,
    )
    axes.add_patch(patch)
    title = {BESIDE: "other files", "": box.layer}.get(box.name, box.name)
    axes.text(x, y + 0.4, title, ha="center", va="center", fontsize=14, weight="bold", zorder=4)
    text = "\n".join(balanced_lines(shortened(caption)))
    axes.text(x, y - 0.14, text, ha="center", va="center", fontsize=9.5, color="#444444", zorder=4)


def shortened(names: str) -> str:
    """As many of the names, separated by commas, as a box has room for, and how many are left."""
    kept = names.split(", ")
    count = len(kept)
    while len(textwrap.wrap(names, CAPTION_WIDTH)) > CAPTION_LINES and len(kept) > 1:
        kept.pop()
        names = f"{', '.join(kept)} and {count - len(kept)} more"
    return names


def balanced_lines(text: str) -> list[str]:
    """The text in as few lines as ``CAPTION_WIDTH`` allows, all about equally long."""
    lines = textwrap.wrap(text, CAPTION_WIDTH)
    for width in range(CAPTION_WIDTH - 1, max(map(len, text.split())) - 1, -1):
        narrower = textwrap.wrap(text, width)
        if len(narrower) > len(lines):
            break
        lines = narrower
    return lines


def _draw_arrow(
    axes: Any, path: Sequence[Hashable], layout: Layout, row_of: dict[Box, int]
) -> None:
    """A smooth line through the bends of an arrow, from the importing folder to the imported."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    start, *bends, end = path
    assert isinstance(start, Box) and isinstance(end, Box)
    half = BOX_SIZE[1] / 2
    points = [(_port(start, path, layout, 0), (row_of[start] + 0.5) * ROW_HEIGHT - half)]
    for number, bend in enumerate(bends, 1):
        y = (row_of[start] - number + 0.5) * ROW_HEIGHT
        points += [(layout.x[bend], y + half), (layout.x[bend], y - half)]
    points.append((_port(end, path, layout, -1), (row_of[end] + 0.5) * ROW_HEIGHT + half))
    vertices, codes = [points[0]], [Curve.MOVETO]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Curve.CURVE4] * 3
    arrow = FancyArrowPatch(
        path=Curve(vertices, codes),
        arrowstyle="-|>",
        mutation_scale=13,
        linewidth=1.1,
        color=COLOURS[start.layer],
        alpha=0.75,
        zorder=2,
    )
    axes.add_patch(arrow)


def _port(box: Box, path: Sequence[Hashable], layout: Layout, end: int) -> float:
    """Horizontal position at which an arrow meets its box; a side's arrows are spread over it."""
    step = 1 if end == 0 else -2
    others = sorted((p for p in layout.paths if p[end] == box), key=lambda p: layout.x[p[step]])
    width = BOX_SIZE[0] * 0.7
    place = [p is path for p in others].index(True)
    return layout.x[box] + width * ((place + 0.5) / len(others) - 0.5)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
