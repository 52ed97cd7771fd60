"""Random play that keeps to the actions which an environment's mask allows."""

from collections.abc import Mapping
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.networks.parts import ACTION_MASK, ALLOWED, mask_part


def with_allowed_actions(env: AnyEnv) -> AnyEnv:
    """The environment, which takes an allowed action in the place of a forbidden one.

    Checks play with random actions, and what an environment does with an action that its mask
    forbids is no fault. An environment without the part ``action_mask`` is returned as it is.
    """
    space = env.observation_space
    if isinstance(space, spaces.Dict) and ACTION_MASK in space.spaces:
        return AllowedActions(env)
    return env if mask_part(space) is None else AllowedActions(env)


@final
class AllowedActions(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Replaces a category that is forbidden by the next one that is not, the first after the last.

    A binary variable that may not be 1 becomes 0.

    Args:
        env: an environment whose observations have the part ``action_mask``, flattened or not.
    """

    def __init__(self, env: AnyEnv) -> None:
        super().__init__(env)
        self._mask: NDArray[np.bool_] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        result = self.env.reset(seed=seed, options=options)
        self._mask = self._seen(result)
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        allowed = (
            action if self._mask is None else allowed_action(self.action_space, action, self._mask)
        )
        result = self.env.step(allowed)
        self._mask = self._seen(result)
        return result

    def _seen(self, result: object) -> NDArray[np.bool_] | None:
        """The mask in what ``reset`` or ``step`` returned; None where there is none."""
        obs = result[0] if isinstance(result, tuple) and result else None
        part = mask_part(self.observation_space)
        if isinstance(obs, Mapping):
            mask = obs.get(ACTION_MASK)
        else:
            mask = None if part is None else np.asarray(obs)[part.start : part.stop]
        return None if mask is None else np.asarray(mask).ravel() > ALLOWED


def allowed_action(space: spaces.Space[Any], action: Any, mask: NDArray[np.bool_]) -> Any:
    """The action itself, or the next that is allowed.

    Args:
        space: of the action.
        action: one of the space.
        mask: one entry a category, those of the first variable first; of ``MultiBinary`` one a
            variable.
    """
    match space:
        case spaces.Discrete() if len(mask) == space.n:
            index = _next_allowed(int(action) - int(space.start), mask)
            return space.dtype.type(index + int(space.start))
        case spaces.MultiDiscrete() if len(mask) == space.nvec.sum():
            masks = np.split(mask, np.cumsum(space.nvec.ravel())[:-1])
            indices: list[int] = (np.asarray(action) - space.start).ravel().tolist()
            chosen = [_next_allowed(i, of_one) for i, of_one in zip(indices, masks, strict=True)]
            found = np.reshape(chosen, space.shape) + space.start
            return found.astype(space.dtype)
        case spaces.MultiBinary() if len(mask) == np.prod(space.shape):
            return np.where(mask.reshape(space.shape), action, 0).astype(space.dtype)
        case _:
            return action


def allows_nothing(space: spaces.Space[Any], mask: NDArray[Any]) -> bool:
    """Whether a mask forbids every category of a variable; of ``MultiBinary`` 0 is always allowed.

    Args:
        space: of the action.
        mask: as :func:`allowed_action` takes it.
    """
    allowed = mask.ravel() > ALLOWED
    if isinstance(space, spaces.MultiBinary):
        return False
    if isinstance(space, spaces.MultiDiscrete) and len(allowed) == space.nvec.sum():
        variables = np.split(allowed, np.cumsum(space.nvec.ravel())[:-1])
        return not all(variable.any() for variable in variables)
    return not allowed.any()


def _next_allowed(index: int, mask: NDArray[np.bool_]) -> int:
    """The first allowed index from this one on, cyclically; the index itself if none is allowed."""
    steps = int(np.argmax(np.roll(mask, -index)))
    return (index + steps) % len(mask)
