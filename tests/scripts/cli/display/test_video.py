"""Frames of a video from what ``render`` returns."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image

from pgtoolkit.config import PolicySettings
from pgtoolkit.envs.registry.resolve import EnvSpec
from pgtoolkit.errors import RequestError
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.scripts.cli.display.video import record_episode


class Draws(gymnasium.Env[Any, Any]):
    """Three steps; ``render`` returns what it is given."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(3, start=1)

    def __init__(self, drawn: Any) -> None:
        self.drawn, self.count = drawn, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.count += 1
        return np.zeros(2, np.float32), 0.0, self.count == 3, False, {}

    def render(self) -> Any:
        return self.drawn


def record(drawn: Any, path: Path) -> None:
    source = EnvSpec("Draws", lambda mode: Draws(drawn))
    env = source.make()
    settings = PolicySettings(hidden=(4,), normalize_observations=False)
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(settings, env.observation_space, env.action_space, generator)
    record_episode(source, policy, path, seed=0)


def picture(red: int) -> Any:
    frame = np.zeros((6, 8, 3), np.uint8)
    frame[..., 0] = red
    return frame


@pytest.mark.parametrize("drawn", [picture(200), [picture(7), picture(200)], picture(200) * 1.0])
def test_the_last_frame_of_a_list_is_drawn(drawn: Any, tmp_path: Path) -> None:
    path = tmp_path / "video.gif"
    record(drawn, path)
    with Image.open(path) as image:
        assert image.size == (8, 6) and image.convert("RGB").getpixel((0, 0)) == (200, 0, 0)


@pytest.mark.parametrize("drawn", [None, [], "picture", np.zeros(3), np.zeros((2, 6, 8, 3))])
def test_what_is_no_picture_is_refused_in_one_sentence(drawn: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Draws returns no picture from render") as caught:
        record(drawn, tmp_path / "video.gif")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_actions_are_in_the_space(dtype: Any, tmp_path: Path) -> None:
    """float32 rounds a bound of 0.1 outwards; ``Draws`` asserts that it contains its action."""
    env = Draws(picture(1))
    env.action_space = spaces.Box(0.1, 0.1, (1,), dtype)  # type: ignore[assignment]
    settings = PolicySettings(distribution="clipped_gaussian", normalize_observations=False)
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(settings, env.observation_space, env.action_space, generator)
    record_episode(EnvSpec("Draws", lambda mode: env), policy, tmp_path / "video.gif", seed=0)
    assert env.count == 3
