"""The import graph of the package's folders, read from the source without importing it.

A box is a folder of the core or of ``envs``, or the whole of ``agents`` or ``scripts``. The files
that lie beside the folders of a layer are one box, if none of them needs a folder; each file that
does need one is a box of its own.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, final

LAYERS = ("pgtoolkit", "envs", "agents", "scripts")
"""The layers from the bottom up; all but the first are folders inside the package ``pgtoolkit``."""
FLAT_LAYERS = ("agents", "scripts")
"""Layers that are drawn as one box."""
BESIDE = "*.py"
"""Name of the box of a layer's files that lie beside its folders."""

Module = tuple[str, ...]
"""Parts of a module's dotted name below ``pgtoolkit``, such as ``("envs", "vector")``."""


@final
class Box(NamedTuple):
    """A folder, a file that needs folders, or the other files beside the folders of a layer."""

    layer: str
    name: str
    """Name inside the layer: of a folder, of a file with its suffix, or ``*.py``."""


Graph = dict[Box, set[Box]]
"""Each box with the boxes that it imports from."""


def read_imports(package: Path) -> dict[Module, set[Module]]:
    """Each module of the package with the modules of the package that it imports.

    Imports inside functions count. Those for type checkers only (``if TYPE_CHECKING:``) and
    packages' own ``__init__`` modules do not.

    Args:
        package: folder of the package ``pgtoolkit``.
    """
    sources = dict(read_sources(package))
    return {
        module: {found for name in imported_names(source) if (found := longest(name, sources))}
        for module, source in sources.items()
    }


LEFT_OUT = ("__init__.py", "__main__.py")


def read_sources(package: Path) -> Iterator[tuple[Module, str]]:
    """Each module with its source; the layers may be links, which ``rglob`` would not follow.

    ``__main__.py`` is left out: it is the command line, in the lowest layer for Python to find.
    """
    for folder in (package, *(package / layer for layer in LAYERS[1:])):
        for path in sorted(folder.rglob("*.py")):
            if path.name not in LEFT_OUT:
                yield (
                    path.relative_to(package).with_suffix("").parts,
                    path.read_text(encoding="utf-8"),
                )


def imported_names(source: str) -> Iterator[str]:
    """Every dotted name that is imported at run time; ``from a import b`` gives ``a.b``."""
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def longest(name: str, modules: Iterable[Module]) -> Module | None:
    """The module that a dotted name belongs to; None for other packages and for ``__init__``."""
    package, *parts = name.split(".")
    if package != "pgtoolkit":
        return None
    lengths = range(len(parts), 0, -1)
    return next((found for n in lengths if (found := tuple(parts[:n])) in modules), None)


def box_graph(imports: Mapping[Module, Iterable[Module]]) -> Graph:
    """For each box, the other boxes that its modules import."""
    names = {module: _own_box(module) for module in imports}
    needs_folder = {
        names[module]
        for module, others in imports.items()
        for other in others
        if names[other].layer == names[module].layer and not names[other].name.endswith(".py")
    }
    boxes = {
        module: box if box in needs_folder or not box.name.endswith(".py") else Box(box[0], BESIDE)
        for module, box in names.items()
    }
    graph: Graph = {box: set() for box in boxes.values()}
    for module, others in imports.items():
        graph[boxes[module]] |= {boxes[other] for other in others} - {boxes[module]}
    return graph


def _own_box(module: Module) -> Box:
    layer, *rest = module if module[0] in LAYERS[1:] else (LAYERS[0], *module)
    if layer in FLAT_LAYERS:
        return Box(layer, "")
    return Box(layer, rest[0] if len(rest) > 1 else f"{rest[0]}.py")


def transitive_reduction(graph: Graph) -> Graph:
    """The graph without the arrows that a longer way implies.

    Raises:
        ValueError: the imports form a cycle.
    """
    below: Graph = {}

    def reach(box: Box, above: tuple[Box, ...]) -> set[Box]:
        if box in above:
            raise ValueError(f"imports form a cycle: {' -> '.join(b.name for b in (*above, box))}")
        if box not in below:
            below[box] = set().union(*({b} | reach(b, (*above, box)) for b in graph[box]))
        return below[box]

    for box in graph:
        reach(box, ())
    return {
        box: {b for b in others if not any(b in below[other] for other in others)}
        for box, others in graph.items()
    }


def describe(package: Path, box: Box, graph: Graph) -> str:
    """A box's description: the first line of its docstring, or the names of its files."""
    folder = package if box.layer == LAYERS[0] else package / box.layer
    if box.name == BESIDE:
        own_boxes = {other.name for other in graph if other.layer == box.layer} | set(LEFT_OUT)
        files = sorted(path for path in folder.glob("*.py") if path.name not in own_boxes)
        return ", ".join(path.stem for path in files)
    path = folder / box.name if box.name.endswith(".py") else folder / box.name / "__init__.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0].replace("`", "").removesuffix(".")
