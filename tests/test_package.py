"""The package's front door: cheap to import, and complete."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOW = ("torch", "tensorboard", "mujoco", "matplotlib", "imageio")
STUBS = {"pgtoolkit": "pgtoolkit/__init__.pyi", "pgtoolkit.envs": "envs/__init__.pyi"}


def stub_names(package: str) -> Iterator[tuple[str, str]]:
    """Module and name of each import in a package's stub."""
    for node in ast.parse((ROOT / STUBS[package]).read_text()).body:
        if isinstance(node, ast.ImportFrom):
            yield from ((f"{package}.{node.module}", alias.name) for alias in node.names)


@pytest.mark.parametrize("package", STUBS)
def test_every_public_name_is_the_object_of_the_module_in_the_stub(package: str) -> None:
    """Each name is also in the package's ``dir()``."""
    names = list(stub_names(package))
    assert len(names) > 40
    for module, name in names:
        found = getattr(importlib.import_module(package), name)
        assert found is getattr(importlib.import_module(module), name)
        assert name in dir(importlib.import_module(package))


@pytest.mark.parametrize("package", STUBS)
def test_a_package_exports_what_its_stub_lists(package: str) -> None:
    """Star imports, completion and type checkers see one list."""
    module = importlib.import_module(package)
    assert set(module.__all__) == {name for _, name in stub_names(package)}


@pytest.mark.parametrize("package", STUBS)
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    """``hasattr`` and star imports rely on an AttributeError."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module(package).no_such_name


@pytest.mark.parametrize("package", STUBS)
def test_importing_the_package_imports_nothing_slow(package: str) -> None:
    """In a fresh process: ``pgtoolkit --help`` must not wait for torch."""
    code = f"import sys, {package}; print([m for m in {SLOW} if m in sys.modules])"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list", "agents"]])
def test_commands_that_need_no_library_run_without_any(arguments: list[str]) -> None:
    """As from a wheel that was installed with ``--no-deps``: ``-S`` leaves out site-packages."""
    result = subprocess.run(
        [sys.executable, "-S", "-m", "pgtoolkit", *arguments],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


@pytest.mark.parametrize("package", STUBS)
def test_a_module_of_the_package_is_imported_without_reading_the_stub(package: str) -> None:
    """Unlike a public name, whose stub is read with a library."""
    module = next(module for module, _ in stub_names(package)).split(".")[-2]
    code = f"import sys; from {package} import {module}; print('lazy_loader' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout.strip() == "False"
