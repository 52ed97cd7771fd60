"""What adapters ask of the ordinary environments that they are given."""

from typing import Any

import gymnasium
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit

from pgtoolkit.errors import RequestError, one_line

AnyEnv = gymnasium.Env[Any, Any]


def flat_box(what: str, space: gymnasium.Space[Any]) -> Box:
    """The space, if it is a Box of one axis.

    Raises:
        RequestError: it is another.
    """
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise RequestError(
            f"a model of this environment cannot be learned: its {what} are {one_line(space)}, and "
            "a Box of one axis is needed. Flatten them (gymnasium.wrappers.FlattenObservation), or "
            "train with `reinforce`, which needs no gradient"
        )
    return space


def time_limit(env: AnyEnv) -> int:
    """Steps after which an episode is truncated, by its registration or by a wrapper.

    Raises:
        RequestError: there is no limit.
    """
    registered = None if env.spec is None else env.spec.max_episode_steps
    limits = [] if registered is None else [registered]
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, TimeLimit):
            limits.append(layer._max_episode_steps)
        layer = layer.env
    if not limits:
        raise RequestError("this environment has no time limit: give max_episode_steps")
    return min(limits)
