"""Random play that keeps to an action mask."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from pgtoolkit.envs.checks.check_env import check_env
from pgtoolkit.envs.checks.finding import has_fault
from pgtoolkit.envs.ordinary.resume_check import choose_resume
from pgtoolkit.envs.registry.allowed_actions import (
    allowed_action,
    allows_nothing,
    with_allowed_actions,
)
from pgtoolkit.envs.registry.flatten import flatten_observations
from pgtoolkit.envs.registry.resolve import find_env


class Corridor(gymnasium.Env[dict[str, Any], np.int64]):
    """Five cells; a step out of them, which the mask forbids, ends the game with an error."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {"cell": spaces.Discrete(5), "action_mask": spaces.MultiBinary(2)}
        )
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.cell, self.steps = int(self.np_random.integers(5)), 0
        return self._look(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.cell, self.steps = self.cell + (1 if action else -1), self.steps + 1
        assert 0 <= self.cell < 5, "a forbidden action was taken"
        ends = bool(self.np_random.random() < 0.1)
        return self._look(), -1.0, ends, self.steps >= 40, {}

    def _look(self) -> dict[str, Any]:
        mask = np.array([self.cell > 0, self.cell < 4], np.int8)
        return {"cell": np.int64(self.cell), "action_mask": mask}


@pytest.mark.parametrize("flat", [False, True])
def test_a_forbidden_action_is_replaced(flat: bool) -> None:
    env: Any = flatten_observations(Corridor()) if flat else Corridor()
    allowed = with_allowed_actions(env)
    for seed in range(5):
        allowed.reset(seed=seed)
        for _ in range(10):
            allowed.step(np.int64(1))
    assert env.unwrapped.cell in (3, 4)


def test_the_play_of_the_checks_keeps_to_the_mask() -> None:
    """Neither ``check-env`` nor the trial of a resume takes a forbidden action."""
    assert not has_fault(check_env(Corridor(), seconds=0.2))
    source = find_env(Corridor())
    assert choose_resume(source.make_guarded).kind == "state"


def test_without_a_mask_an_environment_stays_as_it_is() -> None:
    env = gymnasium.make("CartPole-v1")
    assert with_allowed_actions(env) is env


@pytest.mark.parametrize(
    ("space", "mask", "expected"),
    [
        (spaces.Discrete(3), [0, 0, 0], True),
        (spaces.Discrete(3), [0, 1, 0], False),
        (spaces.MultiDiscrete([2, 2]), [0, 1, 0, 0], True),
        (spaces.MultiDiscrete([2, 2]), [0, 1, 1, 0], False),
        (spaces.MultiBinary(2), [0, 0], False),
    ],
)
def test_a_mask_that_allows_nothing_is_known(
    space: spaces.Space[Any], mask: list[int], expected: bool
) -> None:
    assert allows_nothing(space, np.array(mask)) is expected


@pytest.mark.parametrize(
    ("space", "action", "mask", "expected"),
    [
        (spaces.Discrete(4), 1, [1, 1, 0, 1], 1),
        (spaces.Discrete(4), 2, [1, 1, 0, 1], 3),
        (spaces.Discrete(4), 3, [0, 1, 0, 0], 1),
        (spaces.Discrete(3, start=5), 6, [1, 0, 0], 5),
        (spaces.Discrete(3), 1, [0, 0, 0], 1),
        (spaces.Discrete(3), 1, [1, 0], 1),  # a mask of another size is not understood
        (spaces.MultiDiscrete([2, 3]), [0, 2], [0, 1, 1, 0, 0], [1, 0]),
        (spaces.MultiDiscrete([2, 2], start=[1, 3]), [1, 4], [0, 1, 1, 0], [2, 3]),
        (spaces.MultiBinary(3), [1, 1, 0], [0, 1, 1], [0, 1, 0]),
        (spaces.MultiBinary((2, 1)), [[1], [1]], [1, 0], [[1], [0]]),
    ],
)
def test_the_next_category_that_is_allowed(
    space: spaces.Space[Any], action: Any, mask: list[int], expected: Any
) -> None:
    found = allowed_action(space, np.array(action), np.array(mask, bool))
    assert np.asarray(found).tolist() == expected
    assert space.contains(found) or np.asarray(found).tolist() == action
