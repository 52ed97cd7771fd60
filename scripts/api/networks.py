"""The name under which a run keeps a function that makes the policy's hidden layers."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

from gymnasium import spaces
from torch import nn

from pgtoolkit.config import Settings, TorsoSettings
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.policies.torso import MLP
from pgtoolkit.user_code import place_of

MakeNetworks = Callable[[spaces.Space[Any]], nn.Module]
"""Makes hidden layers from the observation space of one environment."""


def with_networks(
    agent: str | Settings, networks: MakeNetworks | str | None, settings: Mapping[str, Any]
) -> tuple[str | Settings, dict[str, Any]]:
    """The agent and the other settings, with ``networks`` as the setting ``torso`` of the agent.

    Raises:
        RequestError: it has no name that a run can keep, or another torso is given as well.
    """
    if networks is None:
        return agent, dict(settings)
    name = torso_name(networks)
    given = settings.get("torso", MLP)
    if isinstance(agent, TorsoSettings):
        given = agent.torso if given == MLP else given
    if given not in (MLP, name):
        raise RequestError(
            f"networks and torso are the same setting, and torso is {given!r}: give one of them"
        )
    if isinstance(agent, TorsoSettings):
        return dataclasses.replace(agent, torso=name), dict(settings)
    return agent, {**settings, "torso": name}


def torso_name(networks: MakeNetworks | str) -> str:
    """``path/to/file.py:function``, or ``module:function`` in a package; text stays as it is.

    Raises:
        RequestError: it is no function or class at the top of a file or module.
    """
    if isinstance(networks, str):
        return networks
    if isinstance(networks, nn.Module) or not callable(networks):
        raise RequestError(
            f"networks must be a function that takes the observation space and returns a new "
            f"nn.Module, not {_shown(networks)}: policies need layers of their own"
        )
    name = str(getattr(networks, "__qualname__", ""))
    module = sys.modules.get(str(getattr(networks, "__module__", "")))
    if module is None or not name.isidentifier() or getattr(module, name, None) is not networks:
        raise RequestError(
            f"networks is {_shown(networks)}, which has no name that the run's folder could keep "
            "for resume, evaluate and load: define it with def at the top of a file, not as a "
            "lambda, a partial, a method or inside another function"
        )
    place = place_of(module)
    if not place:
        raise RequestError(
            f"networks is {name} of an interactive session, and the run's folder must keep a file "
            f"that resume, evaluate and load can read: write it into a file, and import it or give "
            f"networks='path/to/file.py:{name}'"
        )
    return f"{place}:{name}"


def _shown(value: object) -> str:
    return single_line(repr(value))[:100]
