"""Actions that are not one row starting at 0, as such a row."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from pgtoolkit.envs.registry.ordinary import env_name
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.networks.flat_rows import AnySpace, parts

MAX_CATEGORIES = 1000
"""Most whole numbers an entry of an integer ``Box`` may have to become categories."""


class FlatSpace(NamedTuple):
    """A space that policies act in, and the way from its actions to the environment's."""

    space: AnySpace
    to_env: Callable[[Any], Any]


def flatten_actions(env: AnyEnv) -> AnyEnv:
    """The environment with actions in one row, whose categories start at 0.

    ==================================  =========================================================
    environment's actions               actions of the result
    ==================================  =========================================================
    ``Discrete``, start not 0           ``Discrete`` from 0; the start is added
    ``MultiDiscrete``, start or axes    ``MultiDiscrete`` ``[A]`` from 0; reshaped, start added
    ``MultiBinary`` of several axes     ``MultiBinary`` ``[A]``; reshaped
    ``Box`` of no or several axes       ``Box`` ``[A]``; reshaped
    ``Box`` of integers                 ``MultiDiscrete`` ``[A]``; reshaped, lower bounds added
    ==================================  =========================================================

    Other actions stay as they are.

    Raises:
        RequestError: the actions have several parts or no fixed size, or they are integers without
            bounds or with more than ``MAX_CATEGORIES`` values.
    """
    flat = flat_space(env, env.action_space)
    return env if flat is None else FlatActions(env, flat)


@final
class FlatActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """The environment, taking actions of another space that are translated to its own."""

    def __init__(self, env: AnyEnv, flat: FlatSpace) -> None:
        super().__init__(env)
        self.action_space, self._to_env = flat

    def action(self, action: Any) -> Any:
        return self._to_env(action)


def flat_space(env: AnyEnv, space: AnySpace) -> FlatSpace | None:
    """The flat space and the way back from it; None if the space is flat already."""
    match space:
        case spaces.Discrete():
            return _discrete(space) if space.start else None
        case spaces.MultiDiscrete():
            is_flat = space.nvec.ndim == 1 and not space.start.any()
            return None if is_flat else _categories(space, space.nvec, space.start)
        case spaces.MultiBinary():
            return None if len(space.shape) == 1 else _switches(space)
        case spaces.Box() if space.dtype.kind in "iub":
            return _categories(space, _category_counts(env, space), space.low)
        case spaces.Box():
            return None if len(space.shape) == 1 else _row(space)
        case _:
            raise RequestError(_no_row(env, space))


def _discrete(space: spaces.Discrete) -> FlatSpace:
    start, number = int(space.start), space.dtype.type

    def to_env(action: Any) -> Any:
        return number(int(action) + start)

    return FlatSpace(spaces.Discrete(int(space.n)), to_env)


def _categories(space: AnySpace, counts: NDArray[Any], start: NDArray[Any]) -> FlatSpace:
    """``MultiDiscrete`` actions of these counts, to which ``start`` is added.

    Args:
        space: the environment's space.
        counts: the number of categories of each entry, of the space's shape.
        start: the lowest value of each entry, of the same shape.
    """
    shape, dtype, lowest = start.shape, space.dtype, start.astype(np.int64)

    def to_env(action: Any) -> Any:
        # An array also without axes, where NumPy's sum is a scalar.
        return np.asarray(np.reshape(action, shape) + lowest, dtype)

    return FlatSpace(spaces.MultiDiscrete(counts.reshape(-1)), to_env)


def _switches(space: spaces.MultiBinary) -> FlatSpace:
    shape, dtype = tuple(space.shape), space.dtype

    def to_env(action: Any) -> Any:
        return np.reshape(action, shape).astype(dtype)

    return FlatSpace(spaces.MultiBinary(int(np.prod(shape))), to_env)


def _row(space: spaces.Box) -> FlatSpace:
    shape = space.shape

    def to_env(action: Any) -> Any:
        # The dtype stays as it is: differences of steps are in float64 for any environment.
        return np.reshape(action, shape)

    low, high = space.low.reshape(-1), space.high.reshape(-1)
    return FlatSpace(spaces.Box(low, high, dtype=space.dtype.type), to_env)


def _category_counts(env: AnyEnv, space: spaces.Box) -> NDArray[np.int64]:
    """How many whole numbers each entry of an integer ``Box`` can be, of the space's shape.

    Raises:
        RequestError: an entry has more than ``MAX_CATEGORIES``.
    """
    # Python's integers, because the difference of two bounds may not fit into the space's dtype.
    bounds = zip(space.low.ravel().tolist(), space.high.ravel().tolist(), strict=True)
    counts = [int(high) - int(low) + 1 for low, high in bounds]
    if max(counts, default=1) > MAX_CATEGORIES:
        raise RequestError(
            f"the actions of {env_name(env)}, {single_line(space)}, are integers, each a category "
            f"of its own, and entry {counts.index(max(counts))} has more than {MAX_CATEGORIES}: "
            "give it a Box of floating-point numbers and round them in step, or narrower bounds"
        )
    return np.array(counts, np.int64).reshape(space.shape)


def _no_row(env: AnyEnv, space: AnySpace) -> str:
    name = env_name(env)
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return (
            f"the actions of {name}, {single_line(space)}, are not of a fixed size, and policies "
            "choose a row of numbers: give it a Box, Discrete, MultiDiscrete or MultiBinary space "
            "(gymnasium.wrappers.TransformAction)"
        )
    named = ", ".join(f"{part!r} ({single_line(of_part)})" for part, of_part in parts(space))
    return (
        f"the actions of {name} have the parts {named}, and policies choose one row: give it one "
        "Box (floating-point parts) or one MultiDiscrete (discrete parts), by a wrapper of your "
        "own that puts the parts together (gymnasium.wrappers.TransformAction, or --gym-wrappers "
        "'{\"file.py:MyWrapper\": {}}')"
    )
