"""Success of steps and episodes, from the infos of vector environments."""

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.evaluation import Evaluation, evaluate
from pgtoolkit.rollouts.success import UNKNOWN, step_successes

SPACE = Box(-1, 1, (1,), np.float32)
DONE = np.array([False, True, False])


class Task(gym.Env[np.ndarray, np.ndarray]):
    """Episodes of three steps; every second episode is a success.

    Args:
        says: when its info has ``is_success``: ``always``, ``at the end``, ``if true``, ``never``.
    """

    observation_space, action_space = SPACE, SPACE

    def __init__(self, says: str = "always", kind: type[Any] = bool) -> None:
        self.says, self.kind, self.episode, self.count = says, kind, -1, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return np.zeros(1, np.float32), {"is_success": self.kind(True)}  # of no step: to be ignored

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        ends = self.count == 3
        solved = ends and self.episode % 2 == 1
        silent = self.says == "never" or (self.says == "if true" and not solved)
        if self.says == "at the end" and not ends:
            silent = True
        info = {} if silent else {"is_success": self.kind(solved)}
        return np.zeros(1, np.float32), 1.0, False, ends, info


def own(says: str, kind: type[Any] = bool, num_envs: int = 2) -> AnyVectorEnv:
    return make_vector_env(find_env(functools.partial(Task, says, kind)), num_envs)


def played(env: AnyVectorEnv, episodes: int = 6, max_episode_steps: int = 1000) -> Evaluation:
    policy = GaussianPolicy(SPACE, SPACE, (4,))
    found = evaluate(
        env,
        policy,
        episodes=episodes,
        seed=0,
        device=torch.device("cpu"),
        max_episode_steps=max_episode_steps,
    )
    env.close()
    return found


@pytest.mark.parametrize("says", ["always", "at the end", "if true"])
@pytest.mark.parametrize("kind", [bool, float, np.bool_, np.float32, lambda x: np.array([x])])
def test_every_second_episode_succeeds(says: str, kind: type[Any]) -> None:
    """Three episodes of each of two environments: no, yes, no."""
    found = played(own(says, kind))
    assert found.successes == [False, True, False] * 2
    assert found.success_rate == pytest.approx(1 / 3)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("says", ["always", "at the end", "if true"])
@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
def test_gymnasium_vector_environments_say_the_same(
    mode: AutoresetMode, says: str, vector: type[Any]
) -> None:
    found = played(vector([functools.partial(Task, says)] * 2, autoreset_mode=mode))
    assert found.successes == [False, True, False] * 2


def test_an_environment_that_does_not_say_it_has_no_rate() -> None:
    found = played(own("never"))
    assert found.successes is None
    assert found.success_rate is None


def test_an_episode_that_is_cut_off_has_the_success_of_its_last_step() -> None:
    """Cut off before their ends none has succeeded, and those that say nothing neither."""
    assert played(own("always"), episodes=4, max_episode_steps=2).successes == [False] * 4
    assert played(own("at the end"), episodes=4, max_episode_steps=2).successes is None


def test_a_success_that_is_no_truth_value_is_refused() -> None:
    with pytest.raises(RequestError, match=r"info\['is_success'\].*True or False"):
        played(own("always", kind=lambda _: "yes"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"is_success": np.array([True, False, True])}, [1, 0, 1]),
        ({"is_success": [1.0, 0.0, float("nan")]}, [1, 0, UNKNOWN]),
        (
            {"is_success": np.ones(3), "_is_success": np.array([True, False, False])},
            [1, UNKNOWN, UNKNOWN],
        ),
        # Where an episode ended, the other entry is of the reset.
        ({"is_success": np.ones(3), "final_info": {"is_success": np.zeros(3)}}, [1, 0, 1]),
        ({"is_success": np.ones(3), "final_info": {}}, [1, UNKNOWN, 1]),
        ({"final_info": {"is_success": np.ones(3)}}, [UNKNOWN, 1, UNKNOWN]),
    ],
)
def test_infos_of_vector_environments(info: dict[str, Any], expected: list[int]) -> None:
    found = step_successes(info, DONE)
    assert found is not None
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "info",
    [{}, {"final_info": {}}, {"is_success": True}, {"is_success": ["yes", "no", "no"]}],
)
def test_infos_that_say_nothing(info: dict[str, Any]) -> None:
    assert step_successes(info, DONE) is None
