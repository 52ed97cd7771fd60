"""The shape of the repository: layers, links, packages and sizes."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the bottom up. Each may import those before it. The folders are the real ones: a walk
# through the links would miss every file, because Path.rglob does not follow them.
LAYERS = {
    "pgtoolkit": ROOT / "pgtoolkit",
    "pgtoolkit.envs": ROOT / "envs",
    "pgtoolkit.agents": ROOT / "agents",
    "pgtoolkit.scripts": ROOT / "scripts",
}
LINKS = ("agents", "envs", "scripts")
MAX_LINES = 250


def files(layer: str) -> list[Path]:
    found = sorted(p for p in LAYERS[layer].glob("*.py"))
    assert len(found) > 3, f"the walk over {layer} sees nothing"
    return found


def imports(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported; ``from a import b`` gives ``a.b``, for b may be a module.

    ``importlib.import_module("a.b")`` with a plain string counts as well.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                yield str(argument.value)


def layer_of(name: str) -> str | None:
    """The layer that an imported name belongs to; None for other people's."""
    if name.split(".")[0] != "pgtoolkit":
        return None
    second = ".".join(name.split(".")[:2])
    return second if second in LAYERS else "pgtoolkit"


def forbidden(layer: str, source: str) -> list[str]:
    """What a file of the layer imports and must not."""
    order = list(LAYERS)
    found = []
    for name in imports(ast.parse(source)):
        target = layer_of(name)
        higher = target is not None and order.index(target) > order.index(layer)
        if higher or name.startswith(".") or name.split(".")[0] in LINKS:
            found.append(name)
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_one_way(layer: str) -> None:
    """Pgtoolkit <- pgtoolkit.envs <- pgtoolkit.agents <- pgtoolkit.scripts."""
    broken = {
        str(path.relative_to(ROOT)): names
        for path in files(layer)
        if (names := forbidden(layer, path.read_text()))
    }
    assert broken == {}


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("pgtoolkit", "from pgtoolkit import agents"),
        ("pgtoolkit", "import pgtoolkit.envs.lqg"),
        ("pgtoolkit", "def f():\n    from pgtoolkit.scripts import cli"),
        ("pgtoolkit.envs", "from pgtoolkit.agents.shac import SHAC"),
        ("pgtoolkit.agents", "import importlib\nimportlib.import_module('pgtoolkit.scripts.cli')"),
        ("pgtoolkit.agents", "from . import shac"),
        ("pgtoolkit.scripts", "from agents.shac import SHAC"),
        ("pgtoolkit.scripts", "import envs"),
    ],
)
def test_an_import_that_goes_the_other_way_would_be_seen(layer: str, source: str) -> None:
    """The check above is able to fail."""
    assert forbidden(layer, source)


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("pgtoolkit", "from pgtoolkit.window import Window\nimport torch"),
        ("pgtoolkit.envs", "from pgtoolkit.errors import RequestError"),
        ("pgtoolkit.scripts", "from pgtoolkit.agents.shac import SHAC\nfrom pgtoolkit import envs"),
    ],
)
def test_an_import_that_goes_down_is_allowed(layer: str, source: str) -> None:
    """And so is one's own layer, and other people's packages."""
    assert forbidden(layer, source) == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked sdist has no links")
@pytest.mark.parametrize("name", LINKS)
def test_the_links_lead_to_the_folders(name: str) -> None:
    """Relative, so that they hold in every checkout."""
    link = ROOT / "pgtoolkit" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert link.resolve() == (ROOT / name).resolve()


def test_the_layers_are_the_packages_that_install() -> None:
    """A folder that is missing from pyproject.toml would be missing from the wheel."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["setuptools"]["packages"] == list(LAYERS)
    folders = {name: str(path.relative_to(ROOT)) for name, path in LAYERS.items()}
    del folders["pgtoolkit"]
    assert tools["setuptools"]["package-dir"] == folders


@pytest.mark.parametrize("layer", LAYERS)
def test_the_layers_are_flat(layer: str) -> None:
    """No folder within a folder but the links: setuptools would not install it."""
    within = {
        path.name
        for path in LAYERS[layer].iterdir()
        if path.is_dir() and not path.is_symlink() and path.name != "__pycache__"
    }
    assert within == set()


@pytest.mark.parametrize("layer", LAYERS)
def test_no_file_is_longer_than_two_hundred_and_fifty_lines(layer: str) -> None:
    """Beyond that a file has more than one subject."""
    lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in files(layer)}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
