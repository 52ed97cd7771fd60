"""Making a registered environment, with errors that say what to do."""

import difflib
import importlib
from typing import Any

import gymnasium
import torch
from gymnasium import error as gymnasium_error
from gymnasium.envs.registration import load_env_creator

from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.registry.construct import arguments_message, construct
from pgtoolkit.errors import RequestError

# What Gymnasium says when a package is missing, and our extra that brings it.
_EXTRAS = {"mujoco": "mujoco", "pygame": "classic", "jax": "jax", "warp": "warp"}


def make_registered(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make``.

    Raises:
        RequestError: the id is unknown, a package is missing, or the arguments are wrong.
    """
    try:
        return gymnasium.make(env_id, **kwargs)
    except RequestError:
        raise
    except (ImportError, gymnasium_error.DependencyNotInstalled) as error:
        raise missing_package(env_id, error) from error
    except (gymnasium_error.UnregisteredEnv, gymnasium_error.DeprecatedEnv) as error:
        raise RequestError(_unknown_id(env_id, error)) from error
    except TypeError as error:
        raise RequestError(_wrong_arguments(env_id, kwargs, error)) from error
    except Exception as error:
        given = f" with {kwargs}" if kwargs else ""
        reason = f"{type(error).__name__}: {error}"
        raise RequestError(f"{env_id} cannot be made{given}: {reason}") from error


def import_package(package: str, who: str) -> Any:
    """An optional package, on first use.

    Args:
        package: the module's name.
        who: needs it, to start a sentence with.

    Raises:
        RequestError: it is not installed; says how.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise missing_package(who, error) from error


def missing_package(
    name: str, error: ImportError | gymnasium_error.DependencyNotInstalled
) -> RequestError:
    """What to install, for an environment whose optional package is missing."""
    text, module = str(error).lower(), getattr(error, "name", None)
    for package, extra in _EXTRAS.items():
        if module == package or f"{package} is not installed" in text:
            return RequestError(
                f"{name} needs {package}, which is not installed: "
                f'pip install "policy-gradient-toolkit[{extra}]"'
            )
    return RequestError(f"{name} cannot be made: {error}")


def _unknown_id(env_id: str, error: Exception) -> str:
    name = env_id.split(":")[-1]
    close = difflib.get_close_matches(name, list(gymnasium.registry), n=3, cutoff=0.6)
    advice = f"Did you mean {' or '.join(close)}?" if close else str(error)
    return (
        f"there is no environment {env_id}. {advice} One of your own is named "
        "path/to/file.py:Class, or module:Id-v0 if a module registers it."
    )


def _wrong_arguments(env_id: str, kwargs: dict[str, Any], error: TypeError) -> str:
    """Gymnasium's own message repeats all arguments; this names the wrong ones."""
    entry_point = gymnasium.spec(env_id).entry_point
    creator: Any = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return arguments_message(creator, kwargs, cause)


def make_numpy_env(class_path: str, *, render_mode: str | None = None, **kwargs: Any) -> NumpyEnv:
    """The entry point of this package's registrations: a view in double precision.

    Args:
        class_path: ``"package.module:Class"``, a :class:`DifferentiableEnv
            <pgtoolkit.envs.differentiable.DifferentiableEnv>`.
        render_mode: ``"rgb_array"`` or None.
        kwargs: for the class.

    Raises:
        RequestError: the class does not take these arguments.
    """
    module, name = class_path.split(":")
    env = construct(getattr(importlib.import_module(module), name), kwargs)
    return NumpyEnv(env, dtype=torch.float64, render_mode=render_mode)
