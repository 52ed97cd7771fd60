"""Which agents can be trained on an environment's spaces, found by making their policies."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from gymnasium import spaces

from pgtoolkit.config import CriticSettings, PolicySettings
from pgtoolkit.envs.adapters.requirements import (
    find_time_limit,
    require_action_box,
    require_flat_box,
)
from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.networks.spaces import continuous_size
from pgtoolkit.policies.factory import choose_head, make_policy

AGENTS = Check("interface", "agents")

ACTION_ADVICE = (
    "wrap the environment in gymnasium.wrappers.TransformAction: its function turns an action of a "
    "supported space (a one-dimensional Box of floating-point numbers, or Discrete, MultiDiscrete "
    "or MultiBinary in one row, from 0) into one of yours"
)

OBSERVATION_ADVICE = (
    "wrap the environment in gymnasium.wrappers.FlattenObservation, or in TransformObservation "
    "with a function that returns a row of numbers"
)


class AgentNeeds(NamedTuple):
    """What an agent needs of an environment."""

    settings: Any
    """Its configuration, of which :func:`make_policy
    <pgtoolkit.policies.factory.make_policy>` reads the policy's settings."""
    needs_gradient: bool = False
    """Whether it needs the environment's gradient."""


DEFAULT_POLICIES: dict[str, AgentNeeds] = {
    "a gaussian policy": AgentNeeds(PolicySettings(distribution="gaussian")),
    "a clipped_gaussian policy": AgentNeeds(PolicySettings(distribution="clipped_gaussian")),
}
"""The default policies of this package's agents, for callers that name no agents."""


def check_agents(
    env: AnyEnv, dynamics: DifferentiableEnv | None, agents: Mapping[str, AgentNeeds]
) -> Finding:
    """The agents whose policies can be made for the spaces, with the reasons of the others.

    Args:
        env: one environment.
        dynamics: its dynamics, if it has a gradient of its own or of an adapter.
        agents: by name.
    """
    owner = env if dynamics is None else dynamics
    both = owner.observation_space, owner.action_space
    refusals = {
        name: _adapter_refusal(env)
        if needs.needs_gradient and dynamics is None
        else _policy_refusal(needs.settings, *both)
        for name, needs in agents.items()
    }
    able = [name for name, refusal in refusals.items() if not refusal]
    if not able:
        advice = OBSERVATION_ADVICE if _any_head(both[1], agents) else ACTION_ADVICE
        # The reasons of agents that need a gradient are about adapters.
        first = min(agents, key=lambda name: agents[name].needs_gradient)
        text = f"no agent takes these spaces: {refusals[first]}"
        return AGENTS.fault(text, "training cannot start", advice)
    adapted = [name for name in able if agents[name].needs_gradient and dynamics is None]
    plain = [name for name in able if name not in adapted]
    parts = [f"the spaces fit {', '.join(plain)}"] if plain else []
    parts += [f"{', '.join(adapted)} by an adapter (--differentiate)"] if adapted else []
    parts += [f"not {', '.join(names)}: {why}" for why, names in _by_reason(refusals).items()]
    return AGENTS.passed("; ".join(parts))


def _policy_refusal(
    settings: Any, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> str:
    """Why no policy, or no critic, can be made with these settings; empty if they can."""
    weights = torch.Generator().manual_seed(0)
    try:
        make_policy(settings, observation_space, action_space, weights)
        if isinstance(settings, CriticSettings):
            continuous_size(action_space)
    except RequestError as error:
        return error.with_flags
    return ""


def _adapter_refusal(env: AnyEnv) -> str:
    """Why no adapter can give the environment a gradient, as far as its spaces and limit say."""
    advice = "an adapter, which would give it a gradient, needs that"
    try:
        require_flat_box(env, "observation_space", advice)
        require_action_box(env)
        find_time_limit(env)
    except RequestError as error:
        return error.with_flags
    return ""


def _any_head(action_space: spaces.Space[Any], agents: Mapping[str, AgentNeeds]) -> bool:
    """Whether any agent's policy has a head for the action space."""
    for needs in agents.values():
        try:
            choose_head(needs.settings, action_space)
        except RequestError:
            continue
        return True
    return False


def _by_reason(refusals: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of those that refuse, by their reason."""
    found: dict[str, list[str]] = {}
    for name, why in refusals.items():
        if why:
            found.setdefault(why, []).append(name)
    return found
