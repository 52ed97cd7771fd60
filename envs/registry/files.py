"""Importing an environment class from a user's Python file."""

import difflib
import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.construct import describe_exception
from pgtoolkit.errors import RequestError

EnvClass = type[DifferentiableEnv[Any]] | type[gymnasium.Env[Any, Any]]


def load_class(file: str, name: str) -> EnvClass:
    """The environment class of that name in a Python file.

    Raises:
        RequestError: there is no such file, importing it fails, or it has no such environment.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise RequestError(
            f"there is no file {file}: write the environment as path/to/file.py:Class"
        )
    module = import_file(path.resolve())
    if not name:
        raise RequestError(f"say which class, as in {file}:Class; {_candidates(module, name)}")
    kind = getattr(module, name, None)
    if kind is None:
        raise RequestError(f"{file} has no {name}: {_candidates(module, name)}")
    if not _is_environment(kind):
        raise RequestError(
            f"{name} in {file} is neither a DifferentiableEnv nor a gymnasium.Env class: "
            f"{_candidates(module, name)}"
        )
    if issubclass(kind, DifferentiableEnv) and inspect.isabstract(kind):
        missing = ", ".join(sorted(kind.__abstractmethods__))
        raise RequestError(f"{name} in {file} is not complete: it still has to define {missing}")
    loaded: EnvClass = kind
    return loaded


def import_file(path: Path) -> ModuleType:
    """Imports a file by its path. The second call returns the same module.

    Raises:
        RequestError: the import fails; names the line of the file.
    """
    # Entered in sys.modules, because dataclasses and pickle look the module up there; under a
    # unique name, because another module may have the file's name.
    unique = f"pgtoolkit_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[unique]
        raise RequestError(
            f"importing {path.name} failed: {describe_exception(error, str(path))}"
        ) from error
    return module


def _is_environment(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, (DifferentiableEnv, gymnasium.Env))


def _candidates(module: ModuleType, name: str) -> str:
    """Lists the environments that the file defines, those with similar names first, in words."""
    defined = [
        key
        for key, value in vars(module).items()
        if _is_environment(value) and value.__module__ == module.__name__
    ]
    if not defined:
        return "it defines no environment"
    likely = difflib.get_close_matches(name, defined, n=len(defined), cutoff=0.0)
    return f"it defines {', '.join(likely or defined)}"
