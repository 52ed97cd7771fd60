"""Agents of the user's own: ``path/to/file.py:Class`` or ``module:Class``, with its settings.

As in ``pgtoolkit.agents``, the settings of an agent ``Name`` are ``NameConfig`` beside it.
"""

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pgtoolkit.errors import RequestError, SettingError, single_line
from pgtoolkit.user_code import import_file, import_named, place_of

METHODS = ("collect", "update", "state_dict", "load_state_dict")
"""What the training loop calls; see ``pgtoolkit.agent.Agent``."""

CONSTRUCTOR = ("seed", "total_steps")
"""Keyword arguments of an agent's constructor, after its settings and its environments."""


def names_own_agent(name: str) -> bool:
    """Whether an agent's name stands for a class of the user's."""
    return ":" in name or name.endswith(".py")


def short_name(name: str) -> str:
    """The agent's name without the place of its class, as in titles and names of folders."""
    return name.rpartition(":")[2] if names_own_agent(name) else name


def load_own_agent(name: str) -> tuple[type[Any], type[Any]]:
    """The class of an agent and that of its settings.

    Args:
        name: ``path/to/file.py:Class`` or ``module:Class``.

    Raises:
        RequestError: there is no such file, module or class, importing it fails, it lacks what an
            agent has, or its settings are missing or not of the kind that agents have.
    """
    place, _, class_name = name.rpartition(":")
    if not place:
        raise RequestError(f"say which class of {name} is the agent: {name}:Class")
    module = _module(place)
    agent = getattr(module, class_name, None)
    if agent is None:
        raise RequestError(f"{place} has no class {class_name!r}: {_candidates(module)}")
    _require_agent(agent, name)
    return agent, _config_of(module, class_name, place)


def own_agent_of(config: object) -> str:
    """The name of the agent whose settings an object is, as a run keeps it.

    Raises:
        RequestError: its class stands in no file or module, or there is no agent beside it.
    """
    kind = type(config)
    module = sys.modules.get(kind.__module__)
    agent_name = kind.__qualname__.removesuffix("Config")
    if module is None or getattr(module, kind.__qualname__, None) is not kind:
        raise RequestError(
            f"{kind.__qualname__} has no name that the run's folder could keep: define it at the "
            "top of a file, beside its agent"
        )
    if agent_name == kind.__qualname__ or not hasattr(module, agent_name):
        raise RequestError(
            f"{kind.__qualname__} are settings without an agent: the settings of a class Name have "
            "the name NameConfig and stand beside it"
        )
    place = place_of(module)
    if not place:
        raise RequestError(
            f"{agent_name} is a class of an interactive session, and the run's folder must keep a "
            "file that resume, evaluate and load can read: write it into a file, and import it"
        )
    return f"{place}:{agent_name}"


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return import_named(place)
    path = Path(place).expanduser()
    if not path.is_file():
        raise RequestError(
            f"there is no file {place}: write the agent as path/to/file.py:Class; where a run "
            "names this file, put it there again, or correct `agent` in the run's config.yaml and "
            "give --trust"
        )
    return import_file(path.resolve())


def _require_agent(agent: object, name: str) -> None:
    """Raises unless the class has what the training loop needs.

    Raises:
        RequestError: names what is missing.
    """
    if not isinstance(agent, type):
        raise RequestError(f"{name} is a {type(agent).__name__}, and an agent is a class")
    missing = [method for method in METHODS if not callable(getattr(agent, method, None))]
    if missing:
        raise RequestError(
            f"{name} is no agent: it has no {', '.join(missing)}; pgtoolkit.agent.Agent says what "
            "an agent has"
        )
    if not isinstance(getattr(agent, "needs_gradient", None), bool):
        raise RequestError(
            f"{name} does not say whether it differentiates through its environment: write "
            "`needs_gradient: ClassVar[bool] = False` into the class, or True"
        )
    accepted = inspect.signature(agent).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted):
        return
    refused = [each for each in CONSTRUCTOR if each not in {p.name for p in accepted}]
    if refused:
        raise RequestError(
            f"{name} is made as {short_name(name)}(config, env, seed=..., total_steps=...), and "
            f"its constructor has no {' and no '.join(refused)}"
        )


def _config_of(module: ModuleType, class_name: str, place: str) -> type[Any]:
    """The class of an agent's settings.

    Raises:
        RequestError: there is none, it lacks groups that all agents have, or a setting has no
            default.
    """
    from pgtoolkit.config import NetworkSettings, RolloutSettings

    name = f"{class_name}Config"
    config = getattr(module, name, None)
    groups = (RolloutSettings, NetworkSettings)
    words = " and ".join(group.__name__ for group in groups)
    if not isinstance(config, type) or not all(issubclass(config, group) for group in groups):
        what = "has no" if config is None else "is not a class of settings:"
        raise RequestError(
            f"{place} {what} {name}: the settings of {class_name} are a frozen dataclass of this "
            f"name that derives from {words} of pgtoolkit.config, or from the settings of an agent"
        )
    try:
        config()
    except SettingError:
        raise
    except TypeError as error:
        raise RequestError(
            f"{name} cannot be made without arguments ({single_line(error)}): give every setting a "
            "default"
        ) from error
    if "__dataclass_fields__" not in vars(config):
        raise RequestError(
            f"{name} is not a dataclass of its own: write "
            "@dataclasses.dataclass(frozen=True, kw_only=True) above it"
        )
    return config


def _candidates(module: ModuleType) -> str:
    """Lists the agents that the module defines, in words."""
    found = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and all(hasattr(value, method) for method in METHODS)
    ]
    return f"it defines {', '.join(found)}" if found else "it defines no agent"
