"""Actions in one row that starts at 0, and what the environment receives for them."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.envs.registry.flat_actions import flatten_actions
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.errors import RequestError


class Takes(gymnasium.Env[Any, Any]):
    """An environment with these actions, which it remembers and insists on."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.action_space, self.taken = space, []  # type: ignore[var-annotated]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.taken.append(action)
        return np.zeros(2, np.float32), 0.0, len(self.taken) >= 5, False, {}


GRID = spaces.MultiDiscrete(np.array([[3, 2], [2, 2]]))


@pytest.mark.parametrize(
    ("space", "flat", "action", "received"),
    [
        (spaces.Discrete(3, start=-1), spaces.Discrete(3), 0, -1),
        (spaces.Discrete(4, start=5), spaces.Discrete(4), np.array(3), 8),
        (
            spaces.MultiDiscrete([3, 2], start=[-1, 4]),
            spaces.MultiDiscrete([3, 2]),
            np.array([2, 0]),
            [1, 4],
        ),
        (GRID, spaces.MultiDiscrete([3, 2, 2, 2]), np.array([2, 1, 0, 1]), [[2, 1], [0, 1]]),
        (
            spaces.MultiBinary([2, 2]),
            spaces.MultiBinary(4),
            np.array([1, 0, 0, 1], np.int8),
            [[1, 0], [0, 1]],
        ),
        (
            spaces.Box(-1, 1, (), np.float32),
            spaces.Box(-1, 1, (1,), np.float32),
            np.array([0.5], np.float32),
            0.5,
        ),
        (
            spaces.Box(np.array([[-1], [-2]]), np.array([[1], [2]]), (2, 1), np.float64),
            spaces.Box(np.array([-1.0, -2.0]), np.array([1.0, 2.0]), dtype=np.float64),
            np.array([0.5, -1.5]),
            [[0.5], [-1.5]],
        ),
        (
            spaces.Box(np.array([0, -3]), np.array([10, -1]), dtype=np.int64),
            spaces.MultiDiscrete([11, 3]),
            np.array([10, 0]),
            [10, -3],
        ),
        (
            spaces.Box(-128, 127, (1, 1), np.int8),
            spaces.MultiDiscrete([256]),
            np.array([255]),
            [[127]],
        ),
        (spaces.Box(3, 3, (), np.uint8), spaces.MultiDiscrete([1]), np.array([0]), 3),
    ],
)
def test_the_environment_receives_actions_of_its_own_space(
    space: spaces.Space[Any], flat: spaces.Space[Any], action: Any, received: Any
) -> None:
    env = Takes(space)
    flattened = flatten_actions(env)
    assert flattened.action_space == flat
    flattened.step(action)
    assert np.array_equal(env.taken[0], received)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.MultiDiscrete([3, 2]),
        spaces.MultiBinary(3),
        spaces.Box(-1, 1, (2,), np.float32),
        spaces.Box(-1, 1, (0,), np.float32),
    ],
)
def test_flat_actions_stay_as_they_are(space: spaces.Space[Any]) -> None:
    env = Takes(space)
    assert flatten_actions(env) is env


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (
            spaces.Dict({"move": spaces.Box(-1, 1, (1,)), "mode": spaces.Discrete(2)}),
            r"the actions of Takes have the parts 'mode' \(Discrete\(2\)\), 'move' \(Box",
        ),
        (spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))), r"the parts '0' .* '1'"),
        (spaces.Text(4), "the actions of Takes, Text.* are not of a fixed size"),
        (spaces.Sequence(spaces.Discrete(2)), "are not of a fixed size"),
        (spaces.Box(0, 1000, (2,), np.int64), "entry 0 has more than 1000"),
        (spaces.Box(-(2**62), 2**62, (2,), np.int64), "entry 0 has more than 1000"),
        (
            spaces.Box(np.array([0, 0]), np.array([9, 2000]), dtype=np.int64),
            r"entry 1 has more than 1000: give it a Box of floating-point numbers",
        ),
    ],
)
def test_actions_that_are_no_row_are_refused(space: spaces.Space[Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        find_env(Takes(space))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=-1),
        GRID,
        spaces.MultiBinary([2, 2]),
        spaces.Box(-1, 1, (2, 2), np.float32),
        spaces.Box(0, 3, (), np.int64),
    ],
)
def test_an_agent_acts_in_it(space: spaces.Space[Any]) -> None:
    config = PpoConfig(num_envs=2, n_steps=8, batch_size=8, compile="never")
    agent = Ppo(config, make_vector_env(find_env(Takes(space)), 2), seed=0)
    window = agent.collect()
    assert window.valid.all() and window.terminated.sum() > 0
