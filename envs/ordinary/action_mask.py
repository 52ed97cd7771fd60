"""A wrapper that puts the actions that are allowed into the observation."""

from typing import Any, final

import gymnasium
import numpy as np
from gymnasium import spaces

from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.networks.parts import ACTION_MASK


@final
class ActionMask(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Adds the part ``action_mask`` to observations, which discrete policies follow.

    The mask is ``info["action_mask"]`` of ``reset`` and ``step``, as of Taxi, or else what the
    environment's method ``action_masks()`` returns: one entry an action, true where it is allowed;
    of ``MultiDiscrete`` actions those of the first variable first; of ``MultiBinary`` actions one
    entry a variable, true where it may be 1. Observations that are no
    ``Dict`` become the part ``observation`` of one.

    Args:
        env: an environment with ``Discrete``, ``MultiDiscrete`` or ``MultiBinary`` actions.

    Raises:
        RequestError: actions are of another kind, or the environment tells no mask of that size.
    """

    def __init__(self, env: AnyEnv) -> None:
        super().__init__(env)
        self._size = mask_size(env.action_space)
        space = env.observation_space
        parts = dict(space) if isinstance(space, spaces.Dict) else {"observation": space}
        self._is_dict = isinstance(space, spaces.Dict)
        self.observation_space = spaces.Dict(
            parts | {ACTION_MASK: spaces.Box(0, 1, (self._size,), np.float32)}
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(obs, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(obs, info), reward, terminated, truncated, info

    def _with_mask(self, obs: Any, info: dict[str, Any]) -> dict[str, Any]:
        mask = np.asarray(self._told(info), np.float32)
        if mask.shape != (self._size,):
            raise RequestError(
                f"the action mask has the shape {list(mask.shape)}, and there are {self._size} "
                "actions: give one entry an action, 1 where it is allowed"
            )
        return (obs if self._is_dict else {"observation": obs}) | {ACTION_MASK: mask}

    def _told(self, info: dict[str, Any]) -> Any:
        if ACTION_MASK in info:
            return info[ACTION_MASK]
        try:
            method = self.env.get_wrapper_attr("action_masks")
        except AttributeError as error:
            raise RequestError(
                f'the environment tells no action mask: put it into info["{ACTION_MASK}"] of reset '
                "and step, or give the environment a method action_masks()"
            ) from error
        return method()


def mask_size(space: spaces.Space[Any]) -> int:
    """The number of entries of a mask for these actions.

    Raises:
        RequestError: they are not discrete.
    """
    if isinstance(space, spaces.MultiBinary):
        return int(np.prod(space.shape))
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    raise RequestError(
        "an action mask is for Discrete, MultiDiscrete and MultiBinary actions, not "
        f"{single_line(space)}"
    )
