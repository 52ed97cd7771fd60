"""The wrapper that puts allowed actions into the observation."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import pgtoolkit
from pgtoolkit.envs import ActionMask
from pgtoolkit.envs.ordinary.action_mask import mask_size
from pgtoolkit.errors import RequestError


class Told(gymnasium.Wrapper):
    """CartPole whose method forbids an action."""

    def action_masks(self) -> list[bool]:
        return [True, False]


class InInfo(gymnasium.Wrapper):
    """CartPole whose info forbids an action, another one after each step."""

    def reset(self, **kwargs):  # type: ignore[no-untyped-def]
        obs, info = self.env.reset(**kwargs)
        self.mask = np.array([1, 0], np.int8)
        return obs, info | {"action_mask": self.mask}

    def step(self, action):  # type: ignore[no-untyped-def]
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.mask = 1 - self.mask
        return obs, reward, terminated, truncated, info | {"action_mask": self.mask}


def test_the_mask_of_an_info_is_a_part_of_the_observation() -> None:
    env = ActionMask(InInfo(gymnasium.make("CartPole-v1")))
    obs, info = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert (obs["action_mask"] == info["action_mask"]).all()
    obs, *_, info = env.step(int(np.argmax(obs["action_mask"])))
    assert (obs["action_mask"] == info["action_mask"]).all()


def test_the_mask_of_a_method_is_asked_for() -> None:
    obs, _ = ActionMask(Told(gymnasium.make("CartPole-v1"))).reset(seed=0)
    assert obs["action_mask"].tolist() == [1, 0]


def test_parts_of_an_observation_stay() -> None:
    inner = ActionMask(InInfo(gymnasium.make("CartPole-v1")))
    outer = ActionMask(inner)
    assert isinstance(outer.observation_space, spaces.Dict)
    assert set(outer.observation_space.spaces) == {"observation", "action_mask"}
    assert set(outer.reset(seed=0)[0]) == {"observation", "action_mask"}


def test_an_environment_that_tells_no_mask_is_told_how() -> None:
    with pytest.raises(RequestError, match=r"put it into info\[\"action_mask\"\]"):
        ActionMask(gymnasium.make("CartPole-v1")).reset(seed=0)


def test_a_mask_of_another_size_is_refused() -> None:
    class Wrong(Told):
        def action_masks(self) -> list[bool]:
            return [True] * 3

    with pytest.raises(RequestError, match=r"shape \[3\], and there are 2 actions"):
        ActionMask(Wrong(gymnasium.make("CartPole-v1"))).reset(seed=0)


def test_several_variables_have_one_mask() -> None:
    env = gymnasium.wrappers.TransformAction(
        gymnasium.make("CartPole-v1"), lambda action: int(action[0]), spaces.MultiDiscrete([2, 3])
    )
    space = ActionMask(env).observation_space
    assert isinstance(space, spaces.Dict) and space["action_mask"].shape == (5,)
    assert mask_size(spaces.MultiBinary((2, 3))) == 6


def test_continuous_actions_have_none() -> None:
    with pytest.raises(RequestError, match="for Discrete, MultiDiscrete and MultiBinary"):
        ActionMask(gymnasium.make("Pendulum-v1"))


def test_a_run_never_takes_a_forbidden_action() -> None:
    run = pgtoolkit.train(
        "ppo",
        lambda: ActionMask(Told(gymnasium.make("CartPole-v1"))),
        total_steps=64,
        num_envs=2,
        n_steps=16,
        quiet=True,
    )
    row = np.zeros((5, 6), np.float32)
    row[:, 0] = 1  # the mask stands first, in the order of names
    assert (run.policy.predict(row) == 0).all()
