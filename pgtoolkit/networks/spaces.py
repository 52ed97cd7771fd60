"""Sizes of the observation and action spaces that policies support."""

import numpy as np
from gymnasium import spaces

from pgtoolkit.errors import RequestError, single_line

MIN_IMAGE_SIZE = 12
"""Fewest pixels a side that the kernels of the encoder can read."""


def box_size(role: str, space: object) -> int:
    """The size of a one-dimensional ``Box``.

    Args:
        role: ``"observation"`` or ``"action"``, for the error's message.
        space: the space.

    Raises:
        RequestError: another space; the message names the Gymnasium wrapper that makes it one. Or
            an action space of integers.
    """
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        if role == "action" and not np.issubdtype(space.dtype, np.floating):
            raise RequestError(
                f"the action space {single_line(space)} is of whole numbers: give a Box of "
                "floating-point ones, or a Discrete or MultiDiscrete space"
            )
        return int(space.shape[0])
    advice = (
        "wrap the environment in gymnasium.wrappers.FlattenObservation"
        if role == "observation"
        else "give it a Box of one dimension, or a Discrete, MultiDiscrete or MultiBinary space "
        "that starts at 0"
    )
    raise RequestError(f"the {role} space {single_line(space)} is not supported: {advice}")


def continuous_size(action_space: object) -> int:
    """The number ``A`` of action dimensions.

    Raises:
        RequestError: the actions have no slope to follow.
    """
    if not isinstance(action_space, spaces.Box):
        raise RequestError(
            f"a critic's slope by the action needs continuous actions, and these are "
            f"{single_line(action_space)}: use `ppo`, `a2c` or `reinforce`"
        )
    return box_size("action", action_space)


def categorical_sizes(space: spaces.MultiDiscrete) -> tuple[int, ...]:
    """The number of categories of each variable of a ``MultiDiscrete`` space.

    Raises:
        RequestError: the space has more than one axis, or does not start at 0.
    """
    if space.nvec.ndim != 1 or space.start.any():
        raise RequestError(
            f"the action space {single_line(space)} is not supported: MultiDiscrete actions must "
            "be in one row and start at 0 (gymnasium.wrappers.TransformAction)"
        )
    return tuple(int(n) for n in space.nvec)


def binary_size(space: spaces.MultiBinary) -> int:
    """The number of variables of a one-dimensional ``MultiBinary`` space.

    Raises:
        RequestError: the space has more than one axis.
    """
    if len(space.shape) != 1:
        raise RequestError(
            f"the action space {single_line(space)} is not supported: MultiBinary actions must be "
            "in one row (gymnasium.wrappers.TransformAction)"
        )
    return int(space.shape[0])


def is_image(space: object) -> bool:
    """Whether the observations are images that the encoder can read.

    These are a uint8 ``Box`` of ``[height, width, channels]``, ``[channels, height, width]`` or
    ``[height, width]``, at least 12 pixels a side.
    """
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) in (2, 3) and min(image_shape(space)[1:]) >= MIN_IMAGE_SIZE


def image_shape(space: spaces.Box) -> tuple[int, int, int]:
    """``(channels, height, width)``; the smaller of first and last axis counts as the channels."""
    if len(space.shape) == 2:
        return (1, *space.shape)
    first, second, third = space.shape
    return (first, second, third) if first < third else (third, first, second)
