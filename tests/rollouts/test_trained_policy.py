"""Actions for NumPy observations."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from pgtoolkit.config import PolicySettings
from pgtoolkit.errors import RequestError
from pgtoolkit.networks.parts import RowWithParts
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.trained_policy import TrainedPolicy

SPACE = Box(-np.inf, np.inf, (3,), np.float32)
BOUNDS = Box(-2.0, 2.0, (2,), np.float64)
OBS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def gaussian() -> TrainedPolicy:
    return TrainedPolicy(GaussianPolicy(SPACE, BOUNDS), SPACE, BOUNDS)


def test_the_action_is_the_mode_in_the_action_space() -> None:
    """For a tanh-squashed Gaussian 2 tanh(mu); a batch's rows are those of its observations."""
    policy = gaussian()
    with torch.no_grad():
        gauss = policy.module(torch.from_numpy(OBS)).gaussian
    assert gauss is not None
    batch = policy.predict(OBS)
    np.testing.assert_allclose(batch, 2 * np.tanh(gauss.mean.numpy()), rtol=1e-5)
    assert batch.shape == (5, 2) and batch.dtype == BOUNDS.dtype
    one = policy.predict(OBS[1].tolist())
    assert one.shape == (2,) and BOUNDS.contains(one)
    np.testing.assert_allclose(one, batch[1], rtol=1e-6)


def test_it_prints_as_its_spaces() -> None:
    """From the environment's observations to its actions."""
    text = "TrainedPolicy(Box(-inf, inf, (3,), float32) -> Box(-2.0, 2.0, (2,), float64))"
    assert str(gaussian()) == text


def test_samples_come_from_the_generator_alone() -> None:
    """A seed repeats them, a generator goes on, and the global state of torch stays."""
    policy, before = gaussian(), torch.get_rng_state()
    first = policy.predict(OBS, False, generator=3)
    assert (first == policy.predict(OBS, False, generator=3)).all()
    generator = torch.Generator().manual_seed(3)
    assert (policy.predict(OBS, False, generator=generator) == first).all()
    assert (policy.predict(OBS, False, generator=generator) != first).all()
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_have_the_policys_own_distribution() -> None:
    """The mean of atanh(a / 2) over 4000 samples is mu within 5 standard errors."""
    policy, num = gaussian(), 4000
    with torch.no_grad():
        gauss = policy.module(torch.from_numpy(OBS[0])).gaussian
    assert gauss is not None
    actions = policy.predict(np.tile(OBS[0], (num, 1)), False, generator=0)
    raw = np.arctanh(np.clip(actions / 2, -1 + 1e-12, 1 - 1e-12))
    error = raw.std(0) / np.sqrt(num)
    assert (abs(raw.mean(0) - gauss.mean.numpy()) < 5 * error).all()


def test_a_discrete_action_is_one_integer() -> None:
    """It is hashable, as tables of environments need it."""
    policy = TrainedPolicy(CategoricalPolicy(SPACE, Discrete(4)), SPACE, Discrete(4))
    action = policy.predict(OBS[0])
    assert Discrete(4).contains(action) and {int(action): 0}[action] == 0  # type: ignore[index]
    assert policy.predict(OBS).shape == (5,)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros(4), r"has the shape \[4\]: give one observation \[3\], or a batch \[N, 3\]"),
        (np.zeros((2, 5, 3)), r"has the shape \[2, 5, 3\]"),
        (np.float32(1), r"has the shape \[\]"),
        ("text", "dtype <U4: give an array of numbers"),
        (OBS * 1j, "dtype complex64"),
        (None, "dtype object"),
        ([[1.0], [1.0, 2.0]], "is no array"),
        ({"position": OBS}, "is a dictionary, and the policy reads none"),
        ((OBS[0], {}), "pair"),
        (np.array([0.0, np.nan, 0.0]), "holds NaN"),
        (np.array([0.0, -np.inf, 0.0]), "holds infinity"),
        (torch.zeros(3, requires_grad=True), "is no array"),
    ],
)
def test_what_is_no_observation_is_refused(observation: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        gaussian().predict(observation)


PARTS = Dict({"cell": Discrete(2), "speed": Box(-1, 1, (1,))})


def test_a_dictionary_is_flattened_as_in_training() -> None:
    """One alone, as many as a vector environment has, and the flat row act alike."""
    policy = TrainedPolicy(GaussianPolicy(SPACE, BOUNDS), SPACE, BOUNDS, PARTS)
    flat = policy.predict(np.array([[0, 1, 0.5], [1, 0, -0.5]]))
    batch = {"cell": np.array([1, 0]), "speed": np.array([[0.5], [-0.5]])}
    np.testing.assert_array_equal(policy.predict(batch), flat)
    one = policy.predict({"speed": np.array([0.5]), "cell": 1})
    np.testing.assert_allclose(one, flat[0], rtol=1e-6)
    with pytest.raises(RequestError, match="has the parts"):
        policy.predict({"cell": 1})
    with pytest.raises(RequestError, match="first entry alone"):
        policy.predict((batch, {}))  # what a reset returns


def test_a_privileged_part_may_be_left_out() -> None:
    """The policy does not read it, and where it acts nobody knows it."""
    own = Dict({"cell": Discrete(2), "privileged": Box(-1, 1, (2,))})
    row = RowWithParts(SPACE.low[[0] * 4], SPACE.high[[0] * 4], privileged=(2, 4))
    policy = TrainedPolicy(
        make_policy(PolicySettings(), row, BOUNDS, torch.Generator()), row, BOUNDS, own
    )
    full = {"cell": np.array([1, 0]), "privileged": np.ones((2, 2), np.float32)}
    part = {"cell": np.array([1, 0])}
    np.testing.assert_array_equal(policy.predict(part), policy.predict(full))
    np.testing.assert_allclose(policy.predict({"cell": 1}), policy.predict(full)[0], rtol=1e-5)
    with pytest.raises(RequestError, match="has the parts"):
        policy.predict({"privileged": np.ones(2)})


def test_an_action_is_one_of_the_environments_own_space() -> None:
    own = Discrete(4, start=5)
    given = (None, own, lambda action: np.int64(action + 5))
    policy = TrainedPolicy(CategoricalPolicy(SPACE, Discrete(4)), SPACE, Discrete(4), *given)
    assert own.contains(policy.predict(OBS[0])) and policy.own_action_space == own
    assert (policy.predict(OBS) == policy.module(torch.from_numpy(OBS)).mode.numpy() + 5).all()


def test_a_table_and_a_state_number_are_flattened() -> None:
    table = TrainedPolicy(GaussianPolicy(SPACE, BOUNDS), SPACE, BOUNDS, Box(-9, 9, (3, 1)))
    np.testing.assert_array_equal(table.predict(OBS[..., None]), table.predict(OBS))
    np.testing.assert_array_equal(table.predict(OBS[0, :, None]), table.predict(OBS[0]))
    number = TrainedPolicy(GaussianPolicy(SPACE, BOUNDS), SPACE, BOUNDS, Discrete(3))
    np.testing.assert_array_equal(number.predict(2), number.predict([0, 0, 1]))
    with pytest.raises(RequestError, match="is 3, not in"):
        number.predict(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"deterministic": False}, "give generator="),
        ({"deterministic": False, "generator": -1}, "at least 0, not -1"),
        ({"deterministic": False, "generator": True}, "not True"),
        ({"deterministic": False, "generator": np.random.default_rng(0)}, "not Generator"),
        ({"deterministic": 1}, "must be True or False, not 1"),
        ({"generator": 3}, "deterministic=False"),
    ],
)
def test_samples_need_a_generator_and_modes_take_none(arguments: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        gaussian().predict(OBS, **arguments)
