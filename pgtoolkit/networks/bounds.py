"""Bounds of an action space, entry by entry: which of them count, and which no policy can have."""

import logging
from typing import NamedTuple, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.errors import RequestError, SettingError

LOG = logging.getLogger("pgtoolkit")

NO_BOUND = 2.0**64
"""Magnitude (1.8e19) from which a bound counts as none. The square of such a number is infinite in
float32, so no action of that size could enter a network or a reward. Environments without bounds
often write the largest float."""

FEWEST_VALUES = 256
"""Fewest float32 numbers that must lie between two bounds that are given more exactly."""

MAX_NAMED = 4
"""Most entries that a message names."""

Array = NDArray[np.float64]

Mask = NDArray[np.bool_]
"""``[A]``."""


@final
class ActionBounds(NamedTuple):
    """The box of a policy's actions, in float32. Where both are equal the entry is a constant."""

    low: Tensor
    """``[A]``, minus infinity where there is no bound."""
    high: Tensor
    """``[A]``, plus infinity where there is no bound."""


def action_bounds(action_space: spaces.Space[np.ndarray]) -> ActionBounds:
    """The bounds of a ``Box``.

    A bound is none if its magnitude is at least :data:`NO_BOUND` or the largest number of the
    space's dtype; a finite one is then named in a warning.

    Raises:
        RequestError: an entry's bounds are not numbers, are in the wrong order, are both beyond
            float32, or are so close together that float32 has too few numbers between them.
    """
    assert isinstance(action_space, spaces.Box)
    low, high = action_space.low.astype(np.float64), action_space.high.astype(np.float64)
    limit = min(NO_BOUND, float(np.finfo(action_space.dtype).max))
    _require_range(action_space, low, high, limit)
    below, above = low > -limit, high < limit
    large = (~below & np.isfinite(low)) | (~above & np.isfinite(high))
    if large.any():
        LOG.warning(
            "bounds of %.2g and more count as none: %s",
            limit,
            name_entries(action_space, large),
        )
    low, high = np.where(below, low, -np.inf), np.where(above, high, np.inf)
    _require_resolution(action_space, low, high)
    return ActionBounds(*(torch.as_tensor(x, dtype=torch.float32) for x in (low, high)))


def tanh_bounds(action_space: spaces.Space[np.ndarray]) -> ActionBounds | None:
    """The bounds between which actions are tanh-squashed; None if no entry has a bound.

    Raises:
        RequestError: as :func:`action_bounds`, or only some entries or sides have a bound.
    """
    bounds = action_bounds(action_space)
    lacking = _lacking(bounds)
    if not lacking.any():
        return bounds
    if bool((torch.isinf(bounds.low) & torch.isinf(bounds.high)).all()):
        return None
    raise SettingError(
        "tanh-squashing needs bounds on both sides of every entry, or none at all, and "
        f"{name_entries(action_space, lacking)}: "
        "use --distribution clipped_gaussian, which takes any bounds (reppo and td3 have none), "
        "or bound every entry on both sides (gymnasium.wrappers.TransformAction)"
    )


def finite_bounds(action_space: spaces.Space[np.ndarray]) -> ActionBounds:
    """The bounds of a ``Box`` that has them on both sides of every entry, as a beta needs them.

    Raises:
        RequestError: as :func:`action_bounds`, or a bound is missing.
    """
    bounds = action_bounds(action_space)
    lacking = _lacking(bounds)
    if lacking.any():
        raise SettingError(
            "this distribution needs bounds on both sides, and "
            f"{name_entries(action_space, lacking)}: use --distribution clipped_gaussian, which "
            "takes any bounds (gaussian, full_gaussian, mixture and flow take boxes without any; "
            "reppo and td3 have none of these), or bound the actions "
            "(gymnasium.wrappers.TransformAction)"
        )
    return bounds


def name_entries(action_space: spaces.Space[np.ndarray], which: Mask) -> str:
    """The bounds of some entries, as the space has them.

    ``in the action space entry 1 has [0.0, inf], entry 4 has ... (the first entry is 0)``.
    """
    assert isinstance(action_space, spaces.Box)
    numbers = np.flatnonzero(which).tolist()
    named = [
        f"entry {i} has [{action_space.low[i]!s}, {action_space.high[i]!s}]"
        for i in numbers[:MAX_NAMED]
    ]
    more = f" and {len(numbers) - MAX_NAMED} more" if len(numbers) > MAX_NAMED else ""
    return f"in the action space {', '.join(named)}{more} (the first entry is 0)"


def _lacking(bounds: ActionBounds) -> Mask:
    """The entries without a bound on one side or both."""
    lacking: Mask = (torch.isinf(bounds.low) | torch.isinf(bounds.high)).numpy()
    return lacking


def _require_range(space: spaces.Box, low: Array, high: Array, limit: float) -> None:
    wrong = ~(low <= high)  # also where one is NaN
    if wrong.any():
        raise RequestError(
            "bounds must be numbers, the lower one not above the upper one, and "
            f"{name_entries(space, wrong)}: correct the environment's action_space"
        )
    beyond = (low >= limit) | (high <= -limit)
    if beyond.any():
        raise RequestError(
            f"policies compute in float32 with magnitudes up to {limit:.2g}, and all actions of an "
            f"entry are beyond that: {name_entries(space, beyond)}. Scale the actions "
            "(gymnasium.wrappers.TransformAction)"
        )


def _require_resolution(space: spaces.Box, low: Array, high: Array) -> None:
    """Raises where float32 rounds the actions of a box to nearly one number.

    A float32 box has no other numbers, so there it is right; not so with one bound only, beyond
    which actions are spread by about 1.
    """
    one_sided = np.isinf(low) != np.isinf(high)
    magnitude = np.maximum(*(np.where(np.isinf(x), 0, abs(x)) for x in (low, high)))
    spacing = np.spacing(magnitude.astype(np.float32)).astype(np.float64)
    width = np.where(one_sided, 2.0, high - low)
    coarse = (width < FEWEST_VALUES * spacing) & (low < high)
    coarse &= one_sided | (np.finfo(space.dtype).bits > 32)  # type: ignore[type-var]
    if coarse.any():
        raise RequestError(
            "policies compute in float32, which has too few numbers at these bounds: "
            f"{name_entries(space, coarse)}. Shift or scale the actions "
            "(gymnasium.wrappers.RescaleAction, TransformAction)"
        )
