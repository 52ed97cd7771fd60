"""A run's settings from the arguments of a Python call."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pgtoolkit.config import Settings
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.scripts.cli.experiment import (
    RunConfig,
    RunSettings,
    absolute_path,
    with_absolute_paths,
    with_absolute_torso,
)
from pgtoolkit.scripts.cli.own_agents import own_agent_of
from pgtoolkit.scripts.cli.registry import AGENTS, load_agent, require_agent
from pgtoolkit.scripts.cli.suggestions import did_you_mean
from pgtoolkit.setting_types import fits, words_of
from pgtoolkit.training.loop import TrainConfig

JSON_FIELDS = ("env_kwargs", "adapter_kwargs", "gym_wrappers", "wrappers")
"""Settings that are JSON on the command line, and dictionaries here."""


def settings_of(
    agent: str | Settings, env: str, num_envs: int | None, given: Mapping[str, Any]
) -> RunSettings:
    """All settings of a run.

    Args:
        agent: an agent's name, or its configuration.
        env: the environment's name.
        num_envs: the number of environments, if the environment says it.
        given: the other settings by their names, of the run, of the loop and of the agent.

    Raises:
        RequestError: there is no such agent or setting, or a value does not fit.
    """
    if not env.strip():
        raise RequestError("env is empty: give an id, path/to/file.py:Class, or an environment")
    name, config = agent_of(agent)
    parts = {"run": RunConfig, "loop": TrainConfig, "agent": load_agent(name)[1]}
    values: dict[str, dict[str, Any]] = {part: {} for part in parts}
    for key, value in given.items():
        values[part_of(key, parts, name)][key] = value
    if config is None:
        values["agent"] = with_num_envs(values["agent"], num_envs)
        config = parts["agent"](**values["agent"])
    else:
        require_no_agent_settings(config, values["agent"])
        config = matched_num_envs(config, num_envs)
    run = {k: as_json(k, v) if k in JSON_FIELDS else v for k, v in values["run"].items()}
    if isinstance(run.get("device"), torch.device):
        run["device"] = run["device"].type
    return RunSettings(
        name,
        with_absolute_paths(RunConfig(env=env, **run)),
        TrainConfig(**values["loop"]),
        with_absolute_torso(config),
    )


def agent_of(agent: object) -> tuple[str, Any]:
    """An agent's name, and its configuration if that was given.

    Raises:
        RequestError: it is neither the name nor the configuration of an agent.
    """
    if isinstance(agent, str):
        require_agent(agent)
        return absolute_path(agent), None
    kind, known = type(agent), ", ".join(AGENTS)
    for name, entry in AGENTS.items():
        if (kind.__module__, kind.__name__) == (entry.module, f"{entry.name}Config"):
            return name, agent
        for class_name in (entry.name, f"{entry.name}Config"):
            if getattr(agent, "__name__", kind.__name__) == class_name:
                raise RequestError(
                    f"give the agent's name {name!r} or its settings {entry.name}Config(...), not "
                    f"the {'class' if isinstance(agent, type) else 'object'} {class_name}"
                )
    if isinstance(agent, type) and issubclass(agent, Settings):
        raise RequestError(f"give settings {agent.__name__}(...), not the class {agent.__name__}")
    if isinstance(agent, Settings):
        return own_agent_of(agent), agent
    raise RequestError(
        f"{single_line(repr(agent))[:100]} is no agent: give a name ({known}), "
        "path/to/file.py:Class of one of your own, or the settings of one, such as ShacConfig(...)"
    )


def part_of(key: str, parts: Mapping[str, type[Any]], agent: str) -> str:
    """The part of the settings that has this name: ``run``, ``loop`` or ``agent``.

    Raises:
        RequestError: none has; suggests a name that is close.
    """
    names = {f.name: part for part, kind in parts.items() for f in dataclasses.fields(kind)}
    if key in names:
        return names[key]
    hint = did_you_mean(key, names).rstrip() or f"`pgtoolkit train {agent} --help` lists them"
    raise RequestError(f"{agent} has no setting {key}: {hint}")


def with_num_envs(values: dict[str, Any], num_envs: int | None) -> dict[str, Any]:
    """The agent's settings with the number of environments that the environment has.

    Raises:
        RequestError: another number is given.
    """
    if num_envs is None:
        return values
    if values.get("num_envs", num_envs) != num_envs:
        raise RequestError(_twice(num_envs, values["num_envs"]))
    return values | {"num_envs": num_envs}


def matched_num_envs(config: Any, num_envs: int | None) -> Any:
    """The configuration with the number of environments that the environment has.

    A number that is the class's default was not chosen, and gives way.

    Raises:
        RequestError: another number was chosen.
    """
    if num_envs is None or config.num_envs == num_envs:
        return config
    if config.num_envs != type(config)().num_envs:
        raise RequestError(_twice(num_envs, config.num_envs))
    return dataclasses.replace(config, num_envs=num_envs)


def require_no_agent_settings(config: Any, given: Mapping[str, Any]) -> None:
    """Raises if a setting of an agent whose configuration is given stands beside it.

    Raises:
        RequestError: names the settings and their place.
    """
    if given:
        inside = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise RequestError(
            f"{', '.join(given)} belongs to the agent's settings, which are given: write "
            f"{type(config).__name__}({inside})"
        )


def require_type(name: str, value: object, annotation: Any) -> None:
    """Raises if an argument has not the annotated type.

    Raises:
        RequestError: names the argument, the type in words, and the value.
    """
    if not fits(value, annotation):
        raise RequestError(
            f"{name} must be {words_of(annotation)}, not {single_line(repr(value))[:80]}"
        )


def as_json(name: str, value: Any) -> Any:
    """A dictionary as the JSON that the settings hold; text stays as it is.

    Raises:
        RequestError: it cannot be JSON.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise RequestError(f"{name} must be a dictionary, not {single_line(repr(value))[:100]}")
    try:
        return json.dumps(dict(value), default=_plain_number, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"{name} holds what config.yaml cannot ({error}): give numbers, texts, lists and "
            "dictionaries, or in the place of the environment a function that makes it"
        ) from error


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__}")


def _twice(of_env: int, of_agent: object) -> str:
    return (
        f"num_envs is said twice: the vector environment has {of_env}, and the agent's settings "
        f"have {of_agent}: leave it out of the settings, or give the single environment"
    )
