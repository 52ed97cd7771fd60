"""Ordinary environments with the quirks that users' environments have, in a vector environment."""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.envs.adapters.choose import choose_gradient
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.registry.guard import guard, require_interface
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.errors import EnvFaultError, RequestError
from pgtoolkit.gymnasium_types import AnyVectorEnv

ROW = spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Counter(gymnasium.Env[Any, Any]):
    """Counts its steps; an episode has three. Subclasses return the same things otherwise."""

    observation_space: spaces.Space[Any] = ROW
    action_space: spaces.Space[Any] = spaces.Discrete(2)

    def __init__(self) -> None:
        self.count = 0

    def look(self) -> Any:
        return np.array([self.count, 1.0], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.look(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return self.look(), float(self.count), False, self.count >= 3, {}


class Returns(Counter):
    """Replaces entries of what ``step`` returns: observation, reward, terminated, truncated, info.

    With ``length`` the result has that many entries.
    """

    def __init__(self, length: int = 5, **replaced: Any) -> None:
        super().__init__()
        self.length, self.replaced = length, replaced

    def step(self, action: Any) -> Any:
        names = ("obs", "reward", "terminated", "truncated", "info")
        result = dict(zip(names, super().step(action), strict=True)) | self.replaced
        return tuple(result.values())[: self.length]


class Shows(Counter):
    """Its observation is a value of the space, or what is not one."""

    def __init__(self, space: spaces.Space[Any], value: Any) -> None:
        super().__init__()
        self.observation_space, self.value = space, value

    def look(self) -> Any:
        return self.value


def vectorised(env: gymnasium.Env[Any, Any], num_envs: int = 2) -> AnyVectorEnv:
    made = make_vector_env(find_env(env), num_envs, differentiate="none")
    made.reset(seed=0)
    return made


def step(env: gymnasium.Env[Any, Any]) -> tuple[Any, ...]:
    """The first step of two copies of the environment."""
    return vectorised(env).step(np.array([0, 1]))


class ReusesOneArray(Counter):
    def __init__(self) -> None:
        super().__init__()
        self.array = np.zeros(2, np.float32)

    def look(self) -> Any:
        self.array[:] = [self.count, 1.0]
        return self.array


def test_final_observations_survive_an_environment_that_fills_one_array() -> None:
    config = PpoConfig(num_envs=2, n_steps=6, batch_size=4, compile="never")
    window = Ppo(config, vectorised(ReusesOneArray()), seed=0).collect()
    assert window.obs[:, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert window.next_obs[:, 0, 0].tolist() == [1, 2, 3, 1, 2, 3]


class ReusesOneDictionary(Counter):
    observation_space = spaces.Dict({"row": spaces.Box(-9, 9, (2, 1), np.float32)})

    def __init__(self) -> None:
        super().__init__()
        self.parts = {"row": np.zeros((2, 1), np.float32)}

    def look(self) -> Any:
        self.parts["row"][:] = self.count
        return self.parts


def test_a_dictionary_whose_arrays_are_filled_again_is_flattened_into_a_new_one() -> None:
    env = find_env(ReusesOneDictionary()).make_guarded()
    first = env.reset()[0]
    env.step(0)
    assert first.tolist() == [0.0, 0.0]


def test_infos_of_any_kind_and_reserved_keys_are_left_out() -> None:
    class Chatty(Counter):
        def step(self, action: Any) -> Any:
            info = {"path": np.zeros(self.count), "mixed": None if self.count % 2 else "text"}
            reserved = {"final_obs": np.full(2, 99.0), "_final_obs": True, "episode": {"r": 1.0}}
            return *super().step(action)[:4], info | reserved

    env = vectorised(Chatty())
    for _ in range(2):
        assert env.step(np.array([0, 1]))[4] == {}
    *_, truncated, info = env.step(np.array([0, 1]))
    assert truncated.all()
    assert [row.tolist() for row in info["final_obs"]] == [[3.0, 1.0]] * 2
    assert info["final_info"] == {}


@pytest.mark.parametrize(
    "reward", [np.array([2.5]), np.array(2.5), np.float32(2.5), torch.tensor([[2.5]])]
)
def test_a_reward_of_one_number_in_any_form_is_accepted(reward: Any) -> None:
    assert step(Returns(reward=reward))[1].tolist() == [2.5, 2.5]


@pytest.mark.parametrize("flag", [np.bool_(True), 1, np.array([True]), np.array(True)])
def test_ends_of_any_truth_value_are_accepted(flag: Any) -> None:
    assert step(Returns(terminated=flag))[2].tolist() == [True, True]
    assert step(Returns(truncated=flag))[3].tolist() == [True, True]


def test_a_missing_info_is_an_empty_one() -> None:
    assert step(Returns(info=None))[4] == {}


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (Returns(length=4), "step returns 4 values"),
        (Returns(length=1), "step returns 1 value:"),
        (Returns(reward=None), "step returns None as its reward: return one number"),
        (Returns(reward="1.0"), "step returns '1.0' as its reward"),
        (Returns(reward=1j), "as its reward: return one number"),
        (Returns(reward=np.zeros(3)), "step returns an array [3] as its reward"),
        (Returns(reward=np.zeros(3)), "mo_gymnasium.wrappers:LinearReward"),
        (Returns(reward=[[1.0], [1.0, 2.0]]), "step returns a list as its reward"),
        (Returns(terminated=None), "step returns None as terminated: return True or False"),
        (Returns(truncated=np.zeros(2)), "step returns an array [2] as truncated"),
        (Returns(obs=np.zeros((2, 1))), "the shape [2, 1] where the space has [2]"),
        (Returns(obs=None), "the observation is None where the space has numbers [2]"),
        (Returns(obs=[[1.0], [1.0, 2.0]]), "the space has an array [2]"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(env: Returns, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        step(env)
    text = str(caught.value)
    assert text.startswith("Returns: ") and words in text and "`pgtoolkit check-env`" in text
    assert "\n" not in text


class OldReset(Counter):
    def reset(self, **kwargs: Any) -> Any:
        return super().reset(**kwargs)[0]


class NoSeed(Counter):
    def reset(self) -> Any:  # type: ignore[override]
        self.count = 0
        return self.look(), {}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (OldReset, r"OldReset: reset returns an array \[2\]"),
        (NoSeed, "NoSeed: reset does not take"),
    ],
)
def test_another_reset_is_refused(kind: type[Counter], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        vectorised(kind())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_interface_is_checked_inside_the_wrappers_of_a_registered_environment() -> None:
    """``TimeLimit`` itself would raise a ValueError about unpacking."""
    make: Any = partial(Returns, length=4)
    gymnasium.register("FourValues-v0", make, max_episode_steps=9)
    try:
        env = make_vector_env(find_env("FourValues-v0"), 1)
        env.reset(seed=0)
        with pytest.raises(RequestError, match="FourValues-v0: step returns 4 values"):
            env.step(np.array([0]))
    finally:
        del gymnasium.registry["FourValues-v0"]


def test_an_exception_of_the_environment_itself_is_its_fault() -> None:
    class Breaks(Counter):
        def step(self, action: Any) -> Any:
            raise ValueError("the simulator went away")

    with pytest.raises(EnvFaultError, match=r"Breaks failed .*ValueError: the simulator went away"):
        step(Breaks())


def test_lists_and_numbers_of_another_kind_are_converted_where_nothing_is_lost() -> None:
    integers = spaces.Box(0, 255, (2,), np.uint8)
    fitting: list[Any] = [[7.0, 8.0], np.array([7, 8]), (7, 8)]
    for value in fitting:
        obs = step(Shows(integers, value))[0]
        assert obs.dtype == np.uint8 and obs.tolist() == [[7, 8]] * 2
    for value in ([0.5, 8.0], [np.nan, 8.0], [-1, 8]):
        with pytest.raises(RequestError, match="where the space has uint8"):
            step(Shows(integers, value))


def test_numpy_environments_of_this_package_are_left_as_they_are() -> None:
    env = TimeLimit(NumpyEnv(Pendulum()), 50)
    assert guard(env, "Pendulum") is env


def test_the_guard_changes_no_numbers_of_an_episode() -> None:
    source = find_env("CartPole-v1")
    plain, guarded = source.make(), source.make_guarded()
    plain.reset(seed=3)
    guarded.reset(seed=3)
    for action in [0, 1, 1, 0, 1] * 3:
        expected, found = plain.step(action), guarded.step(action)
        assert np.array_equal(expected[0], found[0]) and expected[0].dtype == found[0].dtype
        assert expected[1:4] == found[1:4]


def test_adapters_refuse_it_in_the_same_sentence() -> None:
    with pytest.raises(RequestError, match=r"^Returns: step returns 4 values"):
        choose_gradient(find_env(Returns(length=4)), needed=True)
    with pytest.raises(RequestError, match=r"^Returns: step returns 4 values"):
        choose_gradient(find_env(Returns(length=4)), "model", needed=True)
    require_interface(Returns(reward=np.array([1.0])), "Returns")


def test_adapters_take_a_reward_in_an_array() -> None:
    class Moves(Counter):
        observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
        action_space = spaces.Box(-1, 1, (1,), np.float32)

        def __init__(self) -> None:
            super().__init__()
            self.x = 0.0

        def look(self) -> Any:
            return np.array([self.x])

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.x = 0.0
            return super().reset(seed=seed)

        def step(self, action: Any) -> Any:
            self.x += 0.1 * float(action[0])
            return self.look(), np.array([-(self.x**2)]), False, False, {}

    limited = TimeLimit(Moves(), 5)
    assert choose_gradient(find_env(limited), "finite-difference", needed=True).env is not None
