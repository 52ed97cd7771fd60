"""Which steps were a success, according to the infos of a vector environment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

IS_SUCCESS = "is_success"
"""Key of a step's ``info``: whether the task is solved, as Gymnasium-Robotics and others have it.
An episode is a success if its last step is."""

UNKNOWN = -1
"""The success of a step whose info does not say it."""

FINAL_INFO = "final_info"
"""Key of the infos of last steps, where the same step reset the environment."""


def step_successes(info: Mapping[str, Any], done: NDArray[np.bool_]) -> NDArray[np.int8] | None:
    """Which steps were a success ``[N]``: 1 or 0, and ``UNKNOWN`` where the info does not say it.

    Args:
        info: a step's, of a vector environment. Its entry ``is_success`` is ``[N]``, and
            ``_is_success`` ``[N]``, if it is there, says which environments have it. Where an
            episode ended, the entry of ``final_info`` counts, if there is one: the other is that
            of the reset.
        done: ``[N]`` bool, where an episode ended.

    Returns:
        None if nothing is known.
    """
    now, last = info.get(IS_SUCCESS), info.get(FINAL_INFO)
    known = None if now is None else _numbers(info, len(done))
    if not isinstance(last, Mapping):
        return known
    final = _numbers(last, len(done)) if IS_SUCCESS in last else None
    if known is None and final is None:
        return None
    unknown = np.full(len(done), UNKNOWN, np.int8)
    return np.where(done, unknown if final is None else final, unknown if known is None else known)


def _numbers(info: Mapping[str, Any], num_envs: int) -> NDArray[np.int8] | None:
    """The entry as 1, 0 and ``UNKNOWN``; None if it is not one truth value for each environment."""
    value = np.asarray(info[IS_SUCCESS])
    if value.shape != (num_envs,) or value.dtype.kind not in "biuf":
        return None
    mask = info.get(f"_{IS_SUCCESS}")
    has_it = np.ones(num_envs, np.bool_) if mask is None else np.asarray(mask, np.bool_)
    has_it &= np.isfinite(value)
    return np.where(has_it, value != 0, UNKNOWN).astype(np.int8)
