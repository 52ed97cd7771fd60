import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import ClipAction, TimeLimit

from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.registry.ordinary import (
    is_flat_box,
    require_flat_box,
    time_limit,
    time_limit_of,
    with_time_limit,
    without_checking_wrappers,
)
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError

INTEGERS = Box(0, 5, (1,), np.int64)


def test_the_shortest_time_limit_counts_wherever_it_is() -> None:
    inner = gymnasium.make("Pendulum-v1").unwrapped
    assert time_limit(inner) is None
    assert time_limit(gymnasium.make("Pendulum-v1")) == 200
    assert time_limit(gymnasium.make("Pendulum-v1", max_episode_steps=-1)) is None
    assert time_limit(TimeLimit(ClipAction(TimeLimit(inner, 30)), 40)) == 30


def test_the_time_limit_of_a_vector_environment() -> None:
    """The longest of its environments' limits, and none if one of them has none."""

    def vector(*limits: int) -> SyncVectorEnv:
        made = [gymnasium.make("Pendulum-v1", max_episode_steps=limit) for limit in limits]
        return SyncVectorEnv([lambda env=env: env for env in made])  # type: ignore[misc]

    assert time_limit_of(vector(30, 40)) == 40
    assert time_limit_of(vector(30, -1)) is None
    assert time_limit_of(DifferentiableVectorEnv(Pendulum(), 2)) == 200
    assert time_limit_of(gymnasium.make_vec("CartPole-v1", 2, "vector_entry_point")) == 500


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
