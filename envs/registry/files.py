"""Importing an environment class from a user's Python file."""

import difflib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.user_code import import_file

EnvClass = type[DifferentiableEnv[Any]] | type[gymnasium.Env[Any, Any]]


def load_class(file: str, name: str) -> EnvClass:
    """The environment class of that name in a Python file.

    Raises:
        RequestError: there is no such file, importing it fails, or it has no such environment.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise RequestError(
            f"there is no file {file}: write the environment as path/to/file.py:Class; where a run "
            "names this file, say where it is now with --env (in Python load(folder, env=...))"
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
