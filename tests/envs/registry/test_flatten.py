"""Flattening of observations that are not one-dimensional arrays."""

from collections import OrderedDict
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from pgtoolkit.agents.reinforce import Reinforce, ReinforceConfig
from pgtoolkit.envs.registry.flatten import flatten_observations
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.errors import RequestError
from pgtoolkit.networks.flat_rows import flat_order, text_parts


def box(*shape: int) -> spaces.Box:
    return spaces.Box(-9.0, 9.0, shape, np.float32)


class Shows(gymnasium.Env[Any, Any]):
    """An environment whose observation is a value of the given space."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any], value: Any = None) -> None:
        self.observation_space, self.value = space, value

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self._look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._look(), 1.0, bool(self.np_random.random() < 0.2), False, {}

    def _look(self) -> Any:
        return self.observation_space.sample() if self.value is None else self.value


def test_a_plain_dictionary_is_flattened_by_sorted_keys() -> None:
    space = spaces.Dict({"velocity": box(2), "angle": box(1)})
    value = {"velocity": np.array([1.0, 2.0], np.float32), "angle": np.array([3.0], np.float32)}
    env = flatten_observations(Shows(space, value))
    assert env.reset()[0].tolist() == [3.0, 1.0, 2.0]
    assert flat_order(space) == [("angle", 1), ("velocity", 2)]


def test_an_ordered_dictionary_keeps_its_order() -> None:
    space = spaces.Dict(OrderedDict(velocity=box(2), angle=box(1)))
    value = {"velocity": np.array([1.0, 2.0], np.float32), "angle": np.array([3.0], np.float32)}
    assert flatten_observations(Shows(space, value)).reset()[0].tolist() == [1.0, 2.0, 3.0]
    assert flat_order(space) == [("velocity", 2), ("angle", 1)]


def test_nested_parts_are_named_by_their_path() -> None:
    inner = spaces.Dict({"b": box(2, 2), "a": spaces.Discrete(3)})
    space = spaces.Dict({"z": box(1), "body": inner, "pair": spaces.Tuple((box(1), box(2)))})
    expected = [("body.a", 3), ("body.b", 4), ("pair.0", 1), ("pair.1", 2), ("z", 1)]
    assert flat_order(space) == expected
    assert flatten_observations(Shows(space)).reset(seed=0)[0].shape == (11,)


@pytest.mark.parametrize("space", [box(3), spaces.Box(0, 255, (16, 16, 3), np.uint8)])
def test_rows_and_images_stay_as_they_are(space: spaces.Box) -> None:
    env = Shows(space)
    assert flatten_observations(env) is env


@pytest.mark.parametrize(
    ("space", "size"),
    [(box(2, 3), 6), (spaces.Discrete(5), 5), (spaces.MultiBinary(4), 4), (box(), 1)],
)
def test_other_shapes_become_rows(space: spaces.Space[Any], size: int) -> None:
    assert flatten_observations(Shows(space)).reset(seed=0)[0].shape == (size,)


class Words(spaces.Space[str]):
    """A library's own space of strings, which Gymnasium cannot flatten."""

    def __init__(self) -> None:
        super().__init__(dtype=str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "go to the red ball"


TEXTS = spaces.Dict(
    {
        "mission": Words(),
        "place": box(2),
        "pair": spaces.Tuple((spaces.Text(9), spaces.Discrete(3))),
        "said": spaces.Dict({"word": spaces.Text(9)}),
    }
)


def test_text_parts_are_left_out_wherever_they_are() -> None:
    assert text_parts(TEXTS) == ["mission", "pair.0", "said.word"]
    assert flat_order(TEXTS) == [("pair.1", 3), ("place", 2)]
    value = {"mission": "go", "place": np.array([7.0, 8.0], np.float32), "said": {"word": "a"}}
    env = flatten_observations(Shows(TEXTS, value | {"pair": ("ha", 1)}))
    assert env.observation_space.shape == (5,)
    assert env.reset()[0].tolist() == [0.0, 1.0, 0.0, 7.0, 8.0]


def test_each_text_part_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    source = find_env(Shows(TEXTS))
    make_vector_env(source, 3).reset(seed=0)
    expected = "Shows: the observation's part 'mission' is text and is left out"
    assert [record.message for record in caplog.records].count(expected) == 1
    assert len(caplog.records) == 3


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.Dict({"mission": Words()})])
def test_text_alone_is_refused(space: spaces.Space[Any]) -> None:
    with pytest.raises(RequestError, match="the observations of Shows are text alone"):
        flatten_observations(Shows(space))


def test_observations_of_no_fixed_size_are_refused() -> None:
    with pytest.raises(RequestError, match="no fixed size"):
        flatten_observations(Shows(spaces.Sequence(box(1))))


def test_the_part_without_a_fixed_size_is_named_with_a_wrapper_that_helps() -> None:
    inner = spaces.Dict({"friends": spaces.Sequence(box(1)), "place": box(2)})
    with pytest.raises(RequestError, match=r"part 'seen.friends' of .*Shows.*FilterObservation"):
        flatten_observations(Shows(spaces.Dict({"seen": inner, "mission": spaces.Text(5)})))


def test_an_agent_trains_on_a_dictionary() -> None:
    source = find_env(Shows(spaces.Dict({"velocity": box(2), "angle": box(1)})))
    agent = Reinforce(ReinforceConfig(num_envs=3, n_steps=4), make_vector_env(source, 3))
    window = agent.collect()
    assert window.obs.shape == (4, 3, 3)
    agent.update(window)
