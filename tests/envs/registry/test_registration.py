"""Every environment of this package by its id, as other libraries use it."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from pgtoolkit.scripts.cli.registry import registered_env_ids

# Warnings of style: unbounded observations, actions that are not normalised.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*WARN.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*symmetric and normalized.*:UserWarning"),
    pytest.mark.parametrize("name", registered_env_ids()),
]


def test_gymnasium_and_stable_baselines3_accept_it(name: str) -> None:
    env = gymnasium.make(name, disable_env_checker=True).unwrapped
    check_env(env, skip_render_check=True)
    sb3_check_env(env, skip_render_check=True)


def test_it_can_render(name: str) -> None:
    env = gymnasium.make(name, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.std() > 0
