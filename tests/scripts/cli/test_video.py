"""A video's episode is played with actions that are in the environment's action space."""

from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.scripts.cli.video import record_episode

OBS = Box(-np.inf, np.inf, (2,), np.float32)


class Strict(gymnasium.Env[np.ndarray, np.ndarray]):
    """Three steps; every action must be in a box that float32 rounds outwards."""

    observation_space = OBS
    name = "Strict"

    def __init__(self, action_space: Box) -> None:
        self.action_space, self.count = action_space, 0

    def make(self, **_: Any) -> "Strict":
        return self

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.count += 1
        return np.zeros(2, np.float32), 0.0, self.count == 3, False, {}

    def render(self) -> Any:
        return np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_its_actions_are_in_the_space(dtype: Any, tmp_path: Path) -> None:
    env = Strict(Box(0.1, 0.1, (1,), dtype))
    policy = make_policy(PpoConfig(), OBS, env.action_space, torch.Generator().manual_seed(0))
    record_episode(cast(Any, env), policy, tmp_path / "video.gif", seed=0)
    assert env.count == 3
