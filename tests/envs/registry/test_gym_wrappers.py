"""Gymnasium's wrappers by name and arguments."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, RescaleAction, TimeLimit

from pgtoolkit.envs.adapters.choose import choose_gradient
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.registry.gym_wrappers import add_gym_wrappers, find_gym_wrapper
from pgtoolkit.envs.registry.ordinary import time_limit
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.errors import RequestError

# Gymnasium warns that a torque in [-2, 2] is not normalised.
pytestmark = pytest.mark.filterwarnings("ignore:.*WARN.*:UserWarning")

WRAPPER_FILE = """
import gymnasium
from gymnasium import spaces


class Halves(gymnasium.ActionWrapper):
    def __init__(self, env, factor=0.5):
        super().__init__(env)
        self.factor = factor

    def action(self, action):
        return self.factor * action


def makes_nothing(env):
    return 3


def only_short(env, steps):
    raise RuntimeError("no such luck")
"""


def pendulum() -> gymnasium.Env[Any, Any]:
    return gymnasium.make("Pendulum-v1")


def test_the_first_wrapper_is_the_innermost() -> None:
    wrappers: dict[str, Any] = {
        "RescaleAction": {"min_action": -1, "max_action": 1},
        "FrameStackObservation": {"stack_size": 4},
    }
    env = add_gym_wrappers(pendulum(), wrappers)
    assert isinstance(env, FrameStackObservation) and isinstance(env.env, RescaleAction)
    assert env.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
    assert env.observation_space.shape == (4, 3)


def test_what_it_makes_is_what_the_wrapper_itself_makes() -> None:
    by_name = add_gym_wrappers(pendulum(), {"RescaleAction": {"min_action": -1, "max_action": 1}})
    by_hand = RescaleAction(pendulum(), np.float32(-1), np.float32(1))
    by_name.reset(seed=1)
    by_hand.reset(seed=1)
    action = np.array([0.7], np.float32)
    assert np.array_equal(by_name.step(action)[0], by_hand.step(action)[0])


@pytest.mark.parametrize(
    ("wrappers", "shape"),
    [
        ({"RescaleAction": {"min_action": [-1], "max_action": [1]}}, (3,)),
        ({"ReshapeObservation": {"shape": [3, 1]}}, (3, 1)),
        ({"TimeAwareObservation": {}}, (4,)),
    ],
)
def test_lists_become_what_the_wrapper_takes(
    wrappers: dict[str, Any], shape: tuple[int, ...]
) -> None:
    assert add_gym_wrappers(pendulum(), wrappers).observation_space.shape == shape


def test_a_wrapper_of_a_module_and_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(WRAPPER_FILE)
    assert find_gym_wrapper("gymnasium.wrappers.common:TimeLimit") is TimeLimit
    env: Any = add_gym_wrappers(pendulum(), {f"{file}:Halves": {"factor": 0.25}})
    assert type(env).__name__ == "Halves" and env.factor == 0.25


@pytest.mark.parametrize(
    ("wrappers", "words"),
    [
        (
            {"RescaleActions": {}},
            r"no wrapper RescaleActions in gymnasium.wrappers: did you mean Resc",
        ),
        ({"vector": {}}, "no wrapper vector in gymnasium.wrappers"),
        ({"gymnasium.wrappers.common:TimLimit": {}}, "did you mean gymnasium.wrappers.common:Time"),
        ({"no_such_module:Wrapper": {}}, "No module named 'no_such_module'"),
        ({"no/such/file.py:Wrapper": {}}, "there is no file no/such/file.py with Wrapper"),
        ({"MINE:makes_nothing": {}}, "returns a int, not an environment"),
        (
            {"MINE:only_short": {"steps": 3}},
            r"\(RuntimeError: no such luck\): give other arguments",
        ),
        (
            {"TimeLimit": {"steps": 3}},
            "TimeLimit does not take the argument 'steps': it takes max_",
        ),
        ({"TimeLimit": {}}, r"needs the argument 'max_episode_steps' \(it takes max_"),
        ({"TimeLimit": {"max_episode_steps": -3}}, "cannot be put around Pendulum-v1"),
        ({"TimeLimit": 200}, "the arguments of TimeLimit must be a JSON object"),
        ({"TransformObservation": {}}, "needs a function as its argument func, which JSON cannot"),
        ({"TransformReward": {"func": "abs"}}, "needs a function as its argument func"),
        ({"FilterObservation": {"filter_keys": ["a"]}}, "cannot be put around Pendulum-v1"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(
    wrappers: dict[str, Any], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(WRAPPER_FILE)
    named = {name.replace("MINE", str(file)): given for name, given in wrappers.items()}
    with pytest.raises(RequestError, match=words) as caught:
        add_gym_wrappers(pendulum(), named)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named() -> None:
    class Needs(gymnasium.Wrapper[Any, Any, Any, Any]):
        def __init__(self, env: Any) -> None:
            raise gymnasium.error.DependencyNotInstalled("opencv is not installed")

    globals()["Needs"] = Needs
    with pytest.raises(RequestError, match="opencv is not installed"):
        add_gym_wrappers(pendulum(), {f"{__name__}:Needs": {}})


def test_adapters_see_the_wrappers() -> None:
    wrappers: dict[str, Any] = {
        "TimeLimit": {"max_episode_steps": 30},
        "RescaleAction": {"min_action": -1, "max_action": 1},
    }
    source = find_env("Pendulum-v1", gym_wrappers=wrappers)
    assert time_limit(source.make()) == 30
    env = choose_gradient(source, "finite-difference", needed=True).env
    assert env is not None and env.max_episode_steps == 30
    assert env.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)


def test_spaces_that_the_wrappers_make_are_flattened() -> None:
    source = find_env("Pendulum-v1", gym_wrappers={"FrameStackObservation": {"stack_size": 4}})
    assert source.make().observation_space.shape == (12,)


@pytest.mark.parametrize("env", ["pgtoolkit/Pendulum-v0", Pendulum()])
def test_environments_of_tensors_refuse_them(env: Any) -> None:
    with pytest.raises(RequestError, match=r"^Pendulum.*TimeLimit.*use --wrappers"):
        find_env(env, gym_wrappers={"TimeLimit": {"max_episode_steps": 9}})


def test_statistics_of_a_wrapper_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    find_env("Pendulum-v1", gym_wrappers={"NormalizeObservation": {}})
    assert "--normalize-observations" in caplog.text
