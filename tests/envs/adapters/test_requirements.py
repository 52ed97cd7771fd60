"""Flat Boxes and time limits of Gymnasium environments."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from pgtoolkit.envs.adapters.requirements import find_time_limit, require_flat_box
from pgtoolkit.errors import RequestError


class Spaces(gymnasium.Env[Any, Any]):
    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.observation_space = self.action_space = space


@pytest.mark.parametrize("kind", ["observation_space", "action_space"])
def test_a_flat_box_is_returned(kind: str) -> None:
    for space, floating in ((Box(-1, 1, (2,)), True), (Box(0, 5, (2,), np.int64), False)):
        assert require_flat_box(Spaces(space), kind, floating=floating) is space


@pytest.mark.parametrize(
    ("space", "floating", "message"),
    [
        (Discrete(2), False, r"observation_space of Spaces is Discrete\(2\).*dimensional Box: do"),
        (Box(-1, 1, (2, 2)), False, "not a one-dimensional Box: do"),
        (Box(-1, 1, ()), False, "not a one-dimensional Box: do"),
        (Box(0, 5, (2,), np.int64), True, "Box of floating-point numbers: do"),
    ],
)
def test_other_spaces_are_refused(
    space: gymnasium.Space[Any], floating: bool, message: str
) -> None:
    with pytest.raises(RequestError, match=f"{message} otherwise"):
        require_flat_box(Spaces(space), "observation_space", "do otherwise", floating=floating)


def test_the_smallest_limit_counts_unless_one_is_given() -> None:
    env = TimeLimit(OrderEnforcing(TimeLimit(Spaces(Discrete(2)), 30)), 40)
    assert find_time_limit(env) == 30
    assert find_time_limit(env, 50) == 50
    assert find_time_limit(gymnasium.make("Pendulum-v1")) == 200
    assert find_time_limit(gymnasium.make("Pendulum-v1", max_episode_steps=7)) == 7


def test_a_class_may_carry_its_registration() -> None:
    env = Spaces(Discrete(2))
    env.spec = gymnasium.spec("Pendulum-v1")
    assert find_time_limit(env) == 200
    assert find_time_limit(TimeLimit(env, 300)) == 200


def test_no_limit_and_a_limit_below_one_are_refused() -> None:
    env = Spaces(Discrete(2))
    with pytest.raises(
        RequestError, match=r"Spaces has no time limit, .*: register it, or wrap it in"
    ):
        find_time_limit(env, advice="register it")
    with pytest.raises(RequestError, match="at least 1, not 0"):
        find_time_limit(env, 0)
