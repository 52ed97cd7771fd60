"""The action that a NumPy environment is given: a member of its action space."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

GiveAction = Callable[[NDArray[Any]], NDArray[Any]]
"""Maps a policy's actions ``[..., A]`` to those that the environment is given."""


def given_action(space: Any) -> GiveAction:
    """Casts a policy's actions to the dtype of a space, and clips them to its bounds there.

    A policy computes in float32, in which a bound may be rounded outwards: 0.1 is above the 0.1 of
    float64. ``space.contains`` then refuses it. Without bounds actions are only cast. The result is
    a copy, because environments may clip their action in place.

    Args:
        space: the action space of one environment.
    """
    dtype = space.dtype
    if not isinstance(space, Box) or not np.isfinite([space.low, space.high]).any():
        return lambda action: action.astype(dtype)
    low, high = space.low, space.high

    def give(action: NDArray[Any]) -> NDArray[Any]:
        given: NDArray[Any] = action.astype(dtype)
        np.maximum(given, low, out=given)
        np.minimum(given, high, out=given)
        return given

    return give
