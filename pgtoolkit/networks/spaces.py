"""The spaces that policies can work with."""

import numpy as np
import torch
from gymnasium import spaces

from pgtoolkit.errors import RequestError, single_line

SMALLEST_IMAGE = 12
"""Pixels a side: the kernels of the encoder need them."""


def box_size(role: str, space: object) -> int:
    """The size of a one-dimensional ``Box``.

    Raises:
        RequestError: another space, with the Gymnasium wrapper that turns it into one.
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


def is_bounded(space: object) -> bool:
    """Whether every dimension of the box is bounded; a mixture is refused."""
    assert isinstance(space, spaces.Box)
    below, above = space.bounded_below, space.bounded_above
    if bool((below & above).all()):
        return True
    if not bool((below | above).any()):
        return False
    raise RequestError(
        f"the action space {single_line(space)} is bounded on some sides only: bound every "
        "dimension on both sides (gymnasium.wrappers.RescaleAction, TransformAction), or none"
    )


def numbers_of_choices(space: spaces.MultiDiscrete) -> tuple[int, ...]:
    """How many there are to choose from, for each choice of a ``MultiDiscrete`` space.

    Raises:
        RequestError: its choices are in a table, or do not start at 0.
    """
    if space.nvec.ndim != 1 or space.start.any():
        raise RequestError(
            f"the action space {single_line(space)} is not supported: MultiDiscrete actions must "
            "be in one row and start at 0 (gymnasium.wrappers.TransformAction)"
        )
    return tuple(int(n) for n in space.nvec)


def number_of_switches(space: spaces.MultiBinary) -> int:
    """The size of a one-dimensional ``MultiBinary`` space.

    Raises:
        RequestError: its switches are in a table.
    """
    if len(space.shape) != 1:
        raise RequestError(
            f"the action space {single_line(space)} is not supported: MultiBinary actions must be "
            "in one row (gymnasium.wrappers.TransformAction)"
        )
    return int(space.shape[0])


def is_image(space: object) -> bool:
    """Whether observations of this space are pictures that a small convolutional network can read.

    A ``Box`` of uint8, ``[height, width, channels]`` (or channels first, or without) of at least 12
    pixels a side.
    """
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) in (2, 3) and min(image_shape(space)[1:]) >= SMALLEST_IMAGE


def image_shape(space: spaces.Box) -> tuple[int, int, int]:
    """``(channels, height, width)``; the smallest axis of the outer two counts as the channels."""
    if len(space.shape) == 2:
        return (1, *space.shape)
    first, second, third = space.shape
    return (first, second, third) if first < third else (third, first, second)


def action_bounds(action_space: spaces.Space[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower and upper bounds of a ``Box``, each ``[A]``."""
    assert isinstance(action_space, spaces.Box)
    low, high = action_space.low, action_space.high
    return torch.as_tensor(low, dtype=torch.float32), torch.as_tensor(high, dtype=torch.float32)
