"""The package's front door: cheap to import, and complete."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import pgtoolkit
import pgtoolkit.envs

ROOT = Path(__file__).parents[1]
SLOW = ("torch", "tensorboard", "mujoco", "matplotlib", "imageio")


@pytest.mark.parametrize("name", sorted(pgtoolkit.HOME))
def test_every_public_name_is_where_the_table_says(name: str) -> None:
    """And it is the same object as in its module."""
    module = importlib.import_module(f"pgtoolkit.{pgtoolkit.HOME[name]}")
    assert getattr(pgtoolkit, name) is getattr(module, name)
    assert name in dir(pgtoolkit)


@pytest.mark.parametrize("name", sorted(pgtoolkit.envs._HOME))
def test_every_public_name_of_the_environments_is_where_the_table_says(name: str) -> None:
    """As above."""
    module = importlib.import_module(f"pgtoolkit.envs.{pgtoolkit.envs._HOME[name]}")
    assert getattr(pgtoolkit.envs, name) is getattr(module, name)
    assert name in dir(pgtoolkit.envs)


@pytest.mark.parametrize(
    ("package", "file"),
    [("pgtoolkit", "pgtoolkit/__init__.py"), ("pgtoolkit.envs", "envs/__init__.py")],
)
def test_what_type_checkers_see_is_what_is_there(package: str, file: str) -> None:
    """The imports under TYPE_CHECKING and the table of lazy names are one list."""
    tree = ast.parse((ROOT / file).read_text())
    found = {
        alias.asname: (node.module or "").removeprefix(f"{package}.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    module = importlib.import_module(package)
    table = module.HOME if package == "pgtoolkit" else module._HOME
    assert found == table


@pytest.mark.parametrize("package", ["pgtoolkit", "pgtoolkit.envs"])
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    """As for any module; hasattr and star imports rely on it."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module(package).no_such_name


@pytest.mark.parametrize("package", ["pgtoolkit", "pgtoolkit.envs"])
def test_importing_the_package_imports_nothing_slow(package: str) -> None:
    """In a fresh process: ``pgtoolkit --help`` must not wait for torch."""
    code = f"import sys, {package}; print([m for m in {SLOW} if m in sys.modules])"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout.strip() == "[]"
