"""What an exported policy's file says about itself."""

import json

import numpy as np
from gymnasium import spaces

from pgtoolkit.scripts.exporting.metadata import bounds, describe_policy, describe_space
from tests.policies.exported_policies import BOUNDED, GREY, ONE_SIDED, WHOLE


def test_names_shapes_dtypes_bounds_and_the_environment() -> None:
    found = describe_policy(WHOLE, BOUNDED, env="My-v0", agent="ppo", num_steps=7)
    assert (found["env"], found["agent"], found["num_steps"]) == ("My-v0", "ppo", 7)
    observation, action = found["observation"], found["action"]
    assert (observation["name"], observation["shape"]) == ("observation", ["N", 3])
    assert (observation["dtype"], observation["high"]) == ("float64", 1e9)
    assert (action["name"], action["shape"], action["dtype"]) == ("action", ["N", 2], "float32")
    assert (action["low"], action["high"]) == ([-2, 1], [2, 5])
    assert "action_space" in action["units"] and "observation_space" in observation["units"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_parts_of_a_dictionary_have_their_places() -> None:
    own = spaces.Dict({"cell": spaces.Discrete(2), "speed": spaces.Box(-1, 1, (1,))})
    found = describe_policy(
        WHOLE, BOUNDED, own_observation_space=own, env="My-v0", agent="ppo", num_steps=7
    )
    assert found["observation"]["parts"] == [
        {"name": "cell", "start": 0, "stop": 2, "one_hot": True},
        {"name": "speed", "start": 2, "stop": 3, "one_hot": False},
    ]
    assert "parts" not in describe_policy(WHOLE, BOUNDED, env="", agent="", num_steps=0)


def test_discrete_actions_have_their_number_of_categories() -> None:
    one = describe_space("action", spaces.Discrete(4))
    assert (one["shape"], one["dtype"], one["categories"]) == (["N"], "int64", 4)
    several = describe_space("action", spaces.MultiDiscrete([3, 2]))
    assert (several["shape"], several["categories"]) == (["N", 2], [3, 2])
    binary = describe_space("action", spaces.MultiBinary(5))
    assert (binary["shape"], binary["dtype"], binary["categories"]) == (["N", 5], "int8", 2)


def test_no_bound_is_null_and_equal_ones_are_one_number() -> None:
    found = describe_space("action", ONE_SIDED)
    assert (found["low"], found["high"]) == ([0.0, None], [None, 0.1])
    assert bounds(np.full(3, -np.inf)) is None
    assert bounds(GREY.high) == 255
    assert bounds(np.arange(2000.0)) is None and bounds(np.arange(3.0)) == [0, 1, 2]
