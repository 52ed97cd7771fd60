"""Making registered environments, with error messages that say what to do."""

import difflib
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import gymnasium
import torch
from gymnasium import error as gymnasium_error
from gymnasium.envs.registration import find_highest_version, load_env_creator, parse_env_id

from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.registry.construct import arguments_message, construct
from pgtoolkit.envs.registry.mujoco_warnings import mujoco_says_once
from pgtoolkit.errors import RequestError
from pgtoolkit.extras import install_command

LOG = logging.getLogger("pgtoolkit")

EXTRA_OF_PACKAGE = {
    "mjx": "mjx",
    "brax": "brax",
    "mujoco": "mujoco",
    "pygame": "classic",
    "Box2D": "box2d",
    "jax": "jax",
    "warp": "warp",
}
"""An optional package to the extra that installs it; the first that fits an error counts."""


def with_version(env_id: str) -> str:
    """The id with the newest registered version, which a message names, if it has none itself.

    Ids with a module (``module:Id``) are left to Gymnasium, which imports the module first.
    """
    try:
        namespace, name, version = parse_env_id(env_id)
    except gymnasium_error.Error:
        return env_id
    newest = find_highest_version(namespace, name)
    if version is not None or newest is None or env_id in gymnasium.registry:
        return env_id
    LOG.warning("%s names no version: %s-v%d is used", env_id, env_id, newest)
    return f"{env_id}-v{newest}"


def exact_twin(name: str) -> str | None:
    """The id of this package's environment of the same task, which has an exact gradient.

    Args:
        name: another environment's id without its namespace, such as ``Pendulum-v1``.
    """
    task = name.rpartition("-v")[0]
    version = find_highest_version("pgtoolkit", task)
    return None if version is None else f"pgtoolkit/{task}-v{version}"


def make_registered(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make(env_id, **kwargs)``.

    Raises:
        RequestError: the id is unknown, a package is missing, or the arguments are wrong.
    """
    try:
        with mujoco_says_once(env_id):
            return gymnasium.make(env_id, **kwargs)
    except RequestError:
        raise
    except (ImportError, gymnasium_error.DependencyNotInstalled) as error:
        if module := _module_not_found(env_id, error):
            raise RequestError(_unknown_module(env_id, module)) from error
        raise missing_package(env_id, error) from error
    except (gymnasium_error.UnregisteredEnv, gymnasium_error.DeprecatedEnv) as error:
        raise RequestError(_unknown_id(env_id, error)) from error
    except TypeError as error:
        raise RequestError(_wrong_arguments(env_id, kwargs, error)) from error
    except Exception as error:
        given = f" with {kwargs}" if kwargs else ""
        reason = f"{type(error).__name__}: {error}"
        raise RequestError(f"{env_id} cannot be made{given}: {reason}") from error


def make_numpy_env(class_path: str, *, render_mode: str | None = None, **kwargs: Any) -> NumpyEnv:
    """Makes one of this package's environments, on NumPy arrays and in double precision.

    It is the entry point under which they are registered with Gymnasium.

    Args:
        class_path: ``"package.module:Class"`` of a :class:`DifferentiableEnv
            <pgtoolkit.envs.differentiable.DifferentiableEnv>`.
        render_mode: ``"rgb_array"`` or None.
        kwargs: arguments of the class.

    Raises:
        RequestError: the class does not take these arguments.
    """
    module, name = class_path.split(":")
    env = construct(getattr(importlib.import_module(module), name), kwargs)
    return NumpyEnv(env, dtype=torch.float64, render_mode=render_mode)


def import_package(package: str, who: str) -> Any:
    """Imports an optional package.

    Args:
        package: the module's name.
        who: the thing that needs the package, the subject of the message's sentence.

    Raises:
        RequestError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise missing_package(who, error) from error


def missing_package(
    name: str, error: ImportError | gymnasium_error.DependencyNotInstalled
) -> RequestError:
    """The error that says which extra to install.

    Args:
        name: the thing that needs the package, the subject of the message's sentence.
        error: the error of the import, or Gymnasium's error about a missing package.
    """
    text, module = str(error).lower(), getattr(error, "name", None)
    for package, extra in EXTRA_OF_PACKAGE.items():
        # `from mujoco import mjx` fails with the name of the package that was found.
        absent = (f"{package} is not installed".lower(), f"cannot import name '{package}'".lower())
        if module == package or any(sentence in text for sentence in absent):
            return RequestError(
                f"{name} needs {package}, which is not installed: {install_command(extra)}"
            )
    return RequestError(f"{name} cannot be made: {error}")


def _unknown_id(env_id: str, error: Exception) -> str:
    module, _, name = env_id.rpartition(":")
    close = difflib.get_close_matches(name, list(gymnasium.registry), n=3, cutoff=0.6)
    advice = f"The module {module} registers no {name}." if module else str(error)
    if close:
        advice = f"Did you mean {' or '.join(close)}?"
    return (
        f"there is no environment {env_id}. {advice} Give a class of your own as "
        f"{class_in_file(env_id)}, and an id that a module registers as module:Id-v0."
    )


def _module_not_found(env_id: str, error: Exception) -> str | None:
    """The module of ``module:Id`` if it, or a package that it is in, does not exist."""
    module, _, name = env_id.rpartition(":")
    absent = getattr(error.__cause__, "name", None)
    return module if name and absent and f"{module}.".startswith(f"{absent}.") else None


def _unknown_module(env_id: str, module: str) -> str:
    return (
        f"there is no environment {env_id}: Python finds no module {module}, which would register "
        f"it. Give a class of your own as {class_in_file(env_id)}; for an id, install the module's "
        "package, or put its folder on PYTHONPATH."
    )


def class_in_file(env_id: str) -> str:
    """How a class is named that a user may mean by an id: ``mine:Hover`` by ``mine.py:Hover``.

    The file is that of the module before the colon or the last point, below the working folder or
    where Python has imported it from. Where there is none it is ``path/to/file.py``.
    """
    module, _, name = env_id.replace(":", ".").rpartition(".")
    local = Path(f"{(module or name).replace('.', '/')}.py")
    imported = getattr(sys.modules.get(module), "__file__", None)
    file = local if os.path.isfile(local) else imported or "path/to/file.py"
    return f"{file}:{name if module and name.isidentifier() else 'Class'}"


def _wrong_arguments(env_id: str, kwargs: dict[str, Any], error: TypeError) -> str:
    """A message that names the wrong arguments, where Gymnasium's repeats all of them."""
    entry_point = gymnasium.spec(env_id).entry_point
    creator: Any = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return arguments_message(creator, kwargs, cause)
