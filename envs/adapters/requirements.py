"""What the adapters require of a Gymnasium environment: flat Boxes and a time limit."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv

CHECKING_WRAPPERS = (OrderEnforcing, PassiveEnvChecker)
"""Wrappers that Gymnasium adds for its own checks; they do not change the outcome of a step."""


def require_flat_box(
    env: AnyEnv, kind: str, advice: str = "flatten it", *, floating: bool = False
) -> Box:
    """A space of the environment, if it is a Box with one axis.

    Args:
        env: the environment.
        kind: ``"observation_space"`` or ``"action_space"``.
        advice: what to do otherwise; the end of the error message.
        floating: require a floating-point dtype too.

    Raises:
        RequestError: it is another space.
    """
    space: Any = getattr(env, kind)
    flat = isinstance(space, Box) and len(space.shape) == 1
    if not flat or (floating and not np.issubdtype(space.dtype, np.floating)):
        numbers = " of floating-point numbers" if floating else ""
        raise RequestError(
            f"the {kind} of {type(env.unwrapped).__name__} is {single_line(space)}, not a "
            f"one-dimensional Box{numbers}: {advice}"
        )
    box: Box = space
    return box


def find_time_limit(
    env: AnyEnv, given: int | None = None, advice: str = "give max_episode_steps"
) -> int:
    """The number of steps after which an episode is truncated.

    Args:
        env: the environment with its wrappers.
        given: replaces the environment's own limit, which is the smallest of its registration and
            its ``TimeLimit`` wrappers.
        advice: what to do if there is no limit; part of the error message.

    Raises:
        RequestError: there is no limit, or it is less than 1.
    """
    limits = _time_limits(env) if given is None else [given]
    if not limits:
        raise RequestError(
            f"{type(env.unwrapped).__name__} has no time limit: {advice}, or wrap it in "
            "gymnasium.wrappers.TimeLimit"
        )
    if min(limits) < 1:
        raise RequestError(f"max_episode_steps must be at least 1, not {min(limits)}")
    return min(limits)


def _time_limits(env: AnyEnv) -> list[int]:
    spec = env.unwrapped.spec
    registered = None if spec is None else spec.max_episode_steps
    limits = [] if registered is None else [registered]
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            limits.append(env._max_episode_steps)
        env = env.env
    return limits
