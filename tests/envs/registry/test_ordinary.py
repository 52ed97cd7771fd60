import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.wrappers import ClipAction, TimeLimit

from pgtoolkit.envs.registry.ordinary import (
    is_flat_box,
    require_flat_box,
    time_limit,
    with_time_limit,
    without_checking_wrappers,
)
from pgtoolkit.errors import RequestError

INTEGERS = Box(0, 5, (1,), np.int64)


def test_the_shortest_time_limit_counts_wherever_it_is() -> None:
    inner = gymnasium.make("Pendulum-v1").unwrapped
    assert time_limit(inner) is None
    assert time_limit(gymnasium.make("Pendulum-v1")) == 200
    assert time_limit(gymnasium.make("Pendulum-v1", max_episode_steps=-1)) is None
    assert time_limit(TimeLimit(ClipAction(TimeLimit(inner, 30)), 40)) == 30


def test_only_the_outermost_wrappers_that_check_are_removed() -> None:
    env = gymnasium.make("Pendulum-v1")
    assert without_checking_wrappers(env) is env.unwrapped
    clipped = ClipAction(env)
    assert without_checking_wrappers(TimeLimit(clipped, 3)) is clipped


def test_an_attribute_becomes_a_time_limit() -> None:
    env = gymnasium.make("Pendulum-v1").unwrapped
    assert with_time_limit(env) is env
    env.max_episode_steps = 7  # type: ignore[attr-defined]
    assert time_limit(with_time_limit(env)) == 7


@pytest.mark.parametrize("space", [Box(-1, 1, (2, 2)), Discrete(2), INTEGERS])
def test_spaces_that_are_no_flat_box_of_numbers_are_refused(space: Space[object]) -> None:
    assert is_flat_box(space) == (space == INTEGERS)
    with pytest.raises(RequestError, match=r"the action_space of X is .*floating-point.*: do that"):
        require_flat_box("X", "action_space", space, "do that", floating=True)


def test_a_flat_box_is_accepted() -> None:
    assert require_flat_box("X", "observation_space", INTEGERS, "") is INTEGERS
    box = Box(-1, 1, (3,))
    assert require_flat_box("X", "action_space", box, "", floating=True) is box
