"""Gymnasium's wrappers by name and arguments, as a configuration gives them."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled

from pgtoolkit.envs.registry.construct import require_arguments
from pgtoolkit.envs.registry.ordinary import env_name
from pgtoolkit.envs.registry.registered import missing_package
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.user_code import import_file

MakeWrapper = Callable[..., Any]

GYMNASIUM_WRAPPERS = "gymnasium.wrappers"

WITH_STATISTICS = ("NormalizeObservation", "NormalizeReward")
"""Gymnasium's wrappers that learn statistics, which are not shared and belong to no policy."""


def add_gym_wrappers(env: AnyEnv, wrappers: Mapping[str, Any]) -> AnyEnv:
    """The environment inside its wrappers, the first wrapper innermost.

    Args:
        env: the environment.
        wrappers: the name of a wrapper in ``gymnasium.wrappers``, ``module:Class`` or
            ``path/to/file.py:Class``, to its arguments without the environment. Lists become
            tuples or arrays where the wrapper's signature says so.

    Raises:
        RequestError: there is no such wrapper, it does not accept these arguments, needs a function
            as an argument, or cannot be put around this environment.
    """
    for name, arguments in wrappers.items():
        if not isinstance(arguments, Mapping):
            raise RequestError(f"--gym-wrappers: the arguments of {name} must be a JSON object")
        env = _wrapped(env, name, find_gym_wrapper(name), arguments)
    return env


def find_gym_wrapper(name: str) -> MakeWrapper:
    """The wrapper of that name.

    Raises:
        RequestError: there is none, or its module or file cannot be imported.
    """
    place, colon, attribute = name.rpartition(":")
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise RequestError(f"--gym-wrappers: there is no file {place} with {attribute}")
        module = import_file(path.resolve())
    else:
        module = _import_module(place if colon else GYMNASIUM_WRAPPERS, name)
    try:
        found = getattr(module, attribute)
    except AttributeError as error:
        raise RequestError(_unknown(name, module)) from error
    except (ImportError, DependencyNotInstalled) as error:  # Gymnasium imports some when named
        raise missing_package(f"the wrapper {name}", error) from error
    if not callable(found):
        raise RequestError(_unknown(name, module))
    make: MakeWrapper = found
    return make


def _import_module(module: str, wrapper: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, DependencyNotInstalled) as error:
        raise missing_package(f"the wrapper {wrapper}", error) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {single_line(error)}"
        raise RequestError(f"importing the wrapper {wrapper} failed ({reason})") from error


def statistics_note(wrappers: Mapping[str, Any]) -> str:
    """A warning about wrappers that learn statistics of each environment; empty without one."""
    named = [name for name in wrappers if name.rpartition(":")[2] in WITH_STATISTICS]
    if not named:
        return ""
    return (
        f"{' and '.join(named)}: each environment, also each one of an evaluation, learns "
        "statistics of its own, which a saved policy does not contain; --normalize-observations "
        "shares and saves those of observations"
    )


def _wrapped(env: AnyEnv, name: str, make: MakeWrapper, arguments: Mapping[str, Any]) -> AnyEnv:
    parameters = _parameters(make)
    for parameter in parameters:
        is_function = "Callable" in str(parameter.annotation)
        if is_function and (parameter.name in arguments or parameter.default is parameter.empty):
            raise RequestError(
                f"--gym-wrappers: {name} needs a function as its argument {parameter.name}, which "
                "JSON cannot hold: write a wrapper class of your own in a file, and name it as "
                "path/to/file.py:MyWrapper"
            )
    given = {
        parameter.name: _fitting(arguments[parameter.name], str(parameter.annotation))
        for parameter in parameters
        if parameter.name in arguments
    }
    bound: Any = functools.partial(make, env)
    bound.__name__ = name
    try:
        require_arguments(bound, {**arguments, **given}, {})
        wrapped = bound(**{**arguments, **given})
    except RequestError as error:
        raise RequestError(f"--gym-wrappers: {error}") from error
    except (ImportError, DependencyNotInstalled) as error:
        raise missing_package(f"the wrapper {name}", error) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {single_line(error)}".rstrip(": ")
        raise RequestError(
            f"--gym-wrappers: {name} with {dict(arguments)} cannot be put around {env_name(env)} "
            f"({reason}): give other arguments, or leave it out"
        ) from error
    if not isinstance(wrapped, gymnasium.Env):
        raise RequestError(
            f"--gym-wrappers: {name} returns a {type(wrapped).__name__}, not an environment: name "
            "a gymnasium.Wrapper class, or a function that wraps an environment"
        )
    return wrapped


def _parameters(make: MakeWrapper) -> list[inspect.Parameter]:
    """The parameters after the environment."""
    try:
        return list(inspect.signature(make).parameters.values())[1:]
    except ValueError:  # written in C, without a signature
        return []


def _fitting(value: Any, annotation: str) -> Any:
    """A JSON list as a tuple or an array, where the parameter's annotation asks for one."""
    if not isinstance(value, list):
        return value
    if "ndarray" in annotation or "NDArray" in annotation:
        return np.array(value)
    return tuple(value) if "tuple" in annotation.lower() else value


def _unknown(name: str, module: ModuleType) -> str:
    place, colon, attribute = name.rpartition(":")
    known = _names_in(module)
    close = difflib.get_close_matches(attribute, known, n=1)
    hint = f"did you mean {place}{colon}{close[0]}? " if close else ""
    others = "" if colon else " (others are named package.module:Class or path/to/file.py:Class)"
    return (
        f"--gym-wrappers: there is no wrapper {attribute} in {place or GYMNASIUM_WRAPPERS}: {hint}"
        f"known: {', '.join(known) or 'none'}{others}"
    )


def _names_in(module: ModuleType) -> list[str]:
    """The names of a module's wrapper classes."""
    if module.__name__ == GYMNASIUM_WRAPPERS:
        return [name for name in module.__all__ if name[0].isupper()]
    return [
        name
        for name, kind in vars(module).items()
        if isinstance(kind, type)
        and issubclass(kind, gymnasium.Wrapper)
        and kind.__module__ != "gymnasium.core"  # base classes that the module imports
    ]
