"""The shape of the repository: layers, links and packages."""

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
# The folders of the core, from the bottom up. Modules that lie beside them are free of this order.
CORE = (
    "distributions",
    "networks",
    "policies",
    "rollouts",
    "diagnostics",
    "estimators",
    "learners",
    "training",
)
LINKS = ("agents", "envs", "scripts")


def files(layer: str) -> list[Path]:
    """The files of a layer, of its sub-packages too; links are not followed.

    ``__main__.py`` is the command line, which lies in the lowest layer because Python looks there.
    """
    found = sorted(p for p in LAYERS[layer].rglob("*.py") if p.name != "__main__.py")
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
    """Names that a file imports although its layer must not import them."""
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


def core_folder(name: str) -> str | None:
    """The folder of the core that an imported name belongs to; None for other names."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "pgtoolkit" and parts[1] in CORE else None


def forbidden_in_core(folder: str | None, source: str) -> list[str]:
    """Imports of a core file that go up; ``folder`` is None for a file beside the folders."""
    if folder is None:
        return []
    found = ((name, core_folder(name)) for name in imports(ast.parse(source)))
    rank = CORE.index
    return [name for name, other in found if other is not None and rank(other) > rank(folder)]


def test_imports_between_the_folders_of_the_core_go_one_way() -> None:
    """Distributions <- networks <- policies <- rollouts <- ... <- training."""
    broken = {}
    for folder in CORE:
        for path in sorted((ROOT / "pgtoolkit" / folder).rglob("*.py")):
            if names := forbidden_in_core(folder, path.read_text()):
                broken[str(path.relative_to(ROOT))] = names
    assert broken == {}


def test_every_folder_of_the_core_has_its_place_in_the_order() -> None:
    """A new folder must be added to CORE, or nothing would be proven of it."""
    root = ROOT / "pgtoolkit"
    inside = (path.relative_to(root) for path in files("pgtoolkit"))
    folders = {path.parts[0] for path in inside if len(path.parts) > 1}
    assert folders == set(CORE)


def test_an_import_inside_the_core_that_goes_the_other_way_would_be_seen() -> None:
    """The check above is able to fail, and allows what goes down."""
    assert forbidden_in_core("networks", "from pgtoolkit.policies.policy import Policy")
    assert forbidden_in_core("rollouts", "import pgtoolkit.training.loop")
    assert not forbidden_in_core("rollouts", "from pgtoolkit.policies.policy import Policy")
    assert not forbidden_in_core("rollouts", "from pgtoolkit.errors import RequestError")


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("pgtoolkit", "from pgtoolkit import agents"),
        ("pgtoolkit", "import pgtoolkit.envs.analytic.lqg.env"),
        ("pgtoolkit", "def f():\n    from pgtoolkit.scripts import cli"),
        ("pgtoolkit.envs", "from pgtoolkit.agents.shac import SHAC"),
        (
            "pgtoolkit.agents",
            "import importlib\nimportlib.import_module('pgtoolkit.scripts.cli.main')",
        ),
        ("pgtoolkit.agents", "from . import shac"),
        ("pgtoolkit.scripts", "from agents.shac import SHAC"),
        ("pgtoolkit.scripts", "import envs"),
    ],
)
def test_an_import_that_goes_the_other_way_would_be_seen(layer: str, source: str) -> None:
    """Each of these sources has an import that the check must find."""
    assert forbidden(layer, source)


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("pgtoolkit", "from pgtoolkit.rollouts.window import Window\nimport torch"),
        ("pgtoolkit.envs", "from pgtoolkit.errors import RequestError"),
        ("pgtoolkit.scripts", "from pgtoolkit.agents.shac import SHAC\nfrom pgtoolkit import envs"),
    ],
)
def test_an_import_that_goes_down_is_allowed(layer: str, source: str) -> None:
    """Imports from lower layers, from the same layer and from other packages are allowed."""
    assert forbidden(layer, source) == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked sdist has no links")
@pytest.mark.parametrize("name", LINKS)
def test_the_links_lead_to_the_folders(name: str) -> None:
    """Relative, so that they hold in every checkout."""
    link = ROOT / "pgtoolkit" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert link.resolve() == (ROOT / name).resolve()


def packages() -> Iterator[str]:
    """Every folder with Python files, as a package's name."""
    for layer, root in LAYERS.items():
        for folder in sorted({path.parent.relative_to(root).parts for path in files(layer)}):
            yield ".".join([layer, *folder])


def test_every_folder_is_a_package_that_installs() -> None:
    """A folder that is missing from pyproject.toml would be missing from the wheel."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["setuptools"]["packages"] == list(packages())
    folders = {name: str(path.relative_to(ROOT)) for name, path in LAYERS.items()}
    del folders["pgtoolkit"]
    assert tools["setuptools"]["package-dir"] == folders
