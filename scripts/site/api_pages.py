"""Pages of the API reference: every public name, from its docstring, by its folder."""

import ast
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path

TITLES = {
    "scripts": "Training, loading and evaluating runs",
    "estimators": "Estimators",
    "distributions": "Distributions",
    "policies": "Policies",
    "rollouts": "Rollouts",
    "diagnostics": "Diagnostics",
    "networks": "Parts of observations",
    "training": "The training loop and checkpoints",
    "errors": "Errors",
    "version": "Version",
}
"""Titles of the pages on the core, by the folder that holds the names."""

ENV_TITLES = {
    "differentiable": "Writing an environment",
    "states": "Writing an environment",
    "vector": "Vector environments",
    "registry": "Vector environments",
    "vectorized": "Vector environments",
    "numpy_env": "Vector environments",
    "control": "Control problems",
    "analytic": "Problems with closed forms",
    "wrappers": "Wrappers",
    "ordinary": "Wrappers",
    "adapters": "Adapters for environments without a derivative",
    "checks": "Checks",
}


def public_names(stub: Path) -> Iterator[tuple[str, str]]:
    """The names that a package's stub re-exports: module relative to the package, and name."""
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if not alias.name.startswith("__"):
                    yield node.module or "", alias.asname or alias.name


def grouped(stub: Path, titles: Mapping[str, str]) -> dict[str, list[str]]:
    """Title to names, in the titles' order.

    Raises:
        KeyError: a name is in a folder that has no title.
    """
    groups: dict[str, list[str]] = {title: [] for title in titles.values()}
    for module, name in public_names(stub):
        groups[titles[module.split(".")[0]]].append(name)
    return {title: names for title, names in groups.items() if names}


def page(title: str, package: str, names: list[str]) -> str:
    """A page of reStructuredText with one entry a name."""
    lines = [title, "=" * len(title), "", f".. currentmodule:: {package}", ""]
    for name in names:
        lines += entry(package, name)
    return "\n".join(lines)


def entry(package: str, name: str) -> list[str]:
    """The directive that documents one name."""
    value = getattr(importlib.import_module(package), name)
    path = f"{package}.{name}"
    if isinstance(value, type):
        return [f".. autoclass:: {path}", "   :members:", "   :show-inheritance:", ""]
    if callable(value) and getattr(value, "__module__", "").startswith("pgtoolkit"):
        return [f".. autofunction:: {path}", ""]
    return [f".. autodata:: {path}", "   :no-value:", ""]


def api_pages(root: Path) -> dict[str, str]:
    """All pages of the reference: file name below ``api`` to text.

    Args:
        root: the folder that holds ``pgtoolkit`` and ``envs``.
    """
    pages: dict[str, str] = {}
    parts: list[tuple[str, list[str]]] = []
    for package, stub, titles in (
        ("pgtoolkit", root / "pgtoolkit" / "__init__.pyi", TITLES),
        ("pgtoolkit.envs", root / "envs" / "__init__.pyi", ENV_TITLES),
    ):
        files = []
        for title, names in grouped(stub, titles).items():
            file = f"{package}-{slug(title)}"
            pages[f"{file}.rst"] = page(title, package, names)
            files.append(file)
        parts.append((package, files))
    return pages | {"index.rst": index(parts)}


def slug(title: str) -> str:
    """A title as part of a file's name."""
    return "-".join(title.lower().replace(",", "").split())


def index(parts: list[tuple[str, list[str]]]) -> str:
    """The first page of the reference."""
    title = "API reference"
    lines = [
        title,
        "=" * len(title),
        "",
        "Every public name, with its signature and types, from its docstring. ``from pgtoolkit",
        "import X`` and ``from pgtoolkit.envs import X`` import a name when it is first used.",
        "",
    ]
    for package, files in parts:
        lines += [f".. toctree::\n   :caption: {package}\n   :maxdepth: 1\n"]
        lines += [f"   {file}" for file in files] + [""]
    return "\n".join(lines)
