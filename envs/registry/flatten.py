"""Flattening of observations that are not one-dimensional arrays."""

from typing import Any

from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

from pgtoolkit.envs.registry.ordinary import is_flat_box
from pgtoolkit.errors import RequestError, one_line
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.networks.spaces import is_image


def flatten_observations(env: AnyEnv) -> AnyEnv:
    """Wraps the environment so that observations are ``[O]``. Images stay as they are.

    The order is Gymnasium's: a ``Dict`` key after key in the order of its space, which sorts the
    keys of a plain dictionary by name and keeps the order of an ``OrderedDict``; a ``Tuple`` entry
    after entry; an array row after row. A ``Discrete`` observation becomes one-hot.

    Raises:
        RequestError: the observations have no fixed size.
    """
    space = env.observation_space
    if is_image(space) or is_flat_box(space):
        return env
    if not space.is_np_flattenable:
        raise RequestError(
            f"observations of {one_line(space)} have no fixed size and cannot be flattened: wrap "
            "the environment in a gymnasium.wrappers.TransformObservation that gives a Box"
        )
    return FlattenObservation(env)


def flat_order(space: spaces.Space[Any]) -> list[tuple[str, int]]:
    """The name and size of each part of a flattened ``Dict`` or ``Tuple``, in order.

    ``[("position", 3), ("velocity.angular", 3)]``; a space without parts is ``[("", size)]``.
    """
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return [("", spaces.flatdim(space))]
    named = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
    return [
        (f"{name}.{within}".rstrip("."), size)
        for name, part in named
        for within, size in flat_order(part)
    ]
