"""Spaces, time limits and outer wrappers of ordinary Gymnasium environments."""

import copy
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from typing_extensions import TypeIs

from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv, AnyVectorEnv

CHECKING_WRAPPERS = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
"""Wrappers that ``gymnasium.make`` adds. They check and truncate, and change nothing else."""


@runtime_checkable
class WithTimeLimits(Protocol):
    """A vector environment that knows the time limits of environments in other processes."""

    time_limits: list[int | None]
    """Each environment's limit in steps, None where there is none."""


def env_name(env: AnyEnv) -> str:
    """The environment's id, or the name of its class if it has none, for messages."""
    spec = env.unwrapped.spec
    return type(env.unwrapped).__name__ if spec is None else spec.id


def without_checking_wrappers(env: AnyEnv) -> AnyEnv:
    """The environment inside the outermost wrappers that only check and truncate."""
    while isinstance(env, CHECKING_WRAPPERS):
        env = env.env
    return env


def time_limit(env: AnyEnv) -> int | None:
    """The smallest limit, in steps, of the registration and of all ``TimeLimit`` wrappers.

    None if there is none.
    """
    spec = env.unwrapped.spec
    registered = None if spec is None else spec.max_episode_steps
    limits = [] if registered is None else [registered]
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            limits.append(env._max_episode_steps)
        env = env.env
    return min(limits, default=None)


def time_limit_of(env: AnyVectorEnv) -> int | None:
    """The time limit of a vector environment's episodes, in steps; None if none is known."""
    if isinstance(env, DifferentiableVectorEnv):
        return env.env.max_episode_steps
    if isinstance(env, WithTimeLimits | SyncVectorEnv):
        limits = (
            env.time_limits
            if isinstance(env, WithTimeLimits)
            else [time_limit(single) for single in env.envs]
        )
        known = [limit for limit in limits if limit is not None]
        return max(known) if len(known) == len(limits) else None
    return None if env.spec is None else env.spec.max_episode_steps


def with_time_limit(env: AnyEnv) -> AnyEnv:
    """Adds a ``TimeLimit`` of the environment's attribute ``max_episode_steps``, if it has one.

    ``gymnasium.make`` does the same for a registered environment.
    """
    limit = getattr(env, "max_episode_steps", None)
    return TimeLimit(env, limit) if isinstance(limit, int) and limit > 0 else env


def seeded_copy(space: gymnasium.Space[Any], seed: int) -> gymnasium.Space[Any]:
    """A copy of the space with a generator of its own, to draw from.

    An environment may replace its spaces at a reset, and a seed that they were given is then lost.
    """
    copied = copy.deepcopy(space)
    copied.seed(seed)
    return copied


def is_flat_box(space: object) -> TypeIs[Box]:
    """Whether the space is a ``Box`` of one dimension."""
    return isinstance(space, Box) and len(space.shape) == 1


def require_flat_box(
    owner: str, name: str, space: gymnasium.Space[Any], advice: str, *, floating: bool = False
) -> Box:
    """The space, which must be a ``Box`` of one dimension.

    Args:
        owner: the environment's name, for the message.
        name: ``observation_space`` or ``action_space``.
        space: the space.
        advice: the end of the message.
        floating: whether the numbers must be of a floating-point type.

    Raises:
        RequestError: it is another space.
    """
    if is_flat_box(space) and not (floating and not np.issubdtype(space.dtype, np.floating)):
        return space
    of = " of floating-point numbers" if floating else ""
    raise RequestError(
        f"the {name} of {owner} is {single_line(space)}, not a one-dimensional Box{of}: {advice}"
    )
