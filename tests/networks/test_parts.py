"""Parts of an observation that not every network reads."""

import copy
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces

from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.errors import RequestError
from pgtoolkit.learners.value_learner import make_value_function
from pgtoolkit.networks.encoder import make_normalizer
from pgtoolkit.networks.parts import Part, RowWithParts, policy_space, row_with_parts
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.numpy_policy import numpy_actor

ORDER = [("action_mask", 2), ("angle", 1), ("privileged", 3), ("speed", 2)]
ROW = spaces.Box(-5, 5, (8,), np.float32)
SPACE = row_with_parts(ROW, ORDER)
FORCES = spaces.Box(-1, 1, (2,), np.float32)


def rows(*batch: int) -> torch.Tensor:
    drawn = torch.randn(*batch, 8, generator=torch.Generator().manual_seed(0))
    drawn[..., :2] = 1
    return drawn


def test_the_parts_of_a_row_are_where_their_names_stand() -> None:
    assert isinstance(SPACE, RowWithParts)
    assert (SPACE.action_mask, SPACE.privileged) == (Part(0, 2), Part(3, 6))
    assert SPACE.policy_entries == [2, 6, 7]
    assert policy_space(SPACE) == spaces.Box(-5, 5, (3,), np.float32)


def test_spaces_with_other_parts_are_others() -> None:
    """A policy of the one would read the wrong entries of the other."""
    same = row_with_parts(ROW, ORDER)
    for copied in (same, copy.deepcopy(SPACE), pickle.loads(pickle.dumps(SPACE))):
        assert copied == SPACE
    moved = RowWithParts(ROW.low, ROW.high, action_mask=(0, 2), privileged=(2, 5))
    assert moved != SPACE and SPACE != ROW and ROW != SPACE


def test_a_row_without_such_names_stays_as_it_is() -> None:
    assert row_with_parts(ROW, [("velocity", 5), ("inner.privileged", 3)]) is ROW
    assert policy_space(ROW) is ROW


def test_something_is_left_for_the_policy() -> None:
    with pytest.raises(RequestError, match="no entry of the observation is left"):
        row_with_parts(ROW, [("action_mask", 2), ("privileged", 6)])


@pytest.mark.parametrize("normalize", [False, True])
def test_the_policy_does_not_read_privileged_entries_and_the_value_function_does(
    normalize: bool,
) -> None:
    space = RowWithParts(ROW.low, ROW.high, privileged=(3, 6))
    policy = GaussianPolicy(space, FORCES, normalize_observations=normalize)
    value = make_value_function(PpoConfig(), space, seed=0)
    obs = rows(4).requires_grad_()
    (of_policy,) = torch.autograd.grad(policy(obs).mode.sum(), obs)
    (of_value,) = torch.autograd.grad(value(policy.normalizer(obs)).sum(), obs)
    assert (of_policy[:, 3:6] == 0).all() and (of_policy[:, [0, 1, 2, 6, 7]] != 0).all()
    assert (of_value != 0).all()


def test_the_policy_is_that_of_the_other_entries_alone() -> None:
    """The same generator draws the same weights for both."""
    space = RowWithParts(ROW.low, ROW.high, privileged=(3, 6))
    whole, alone = GaussianPolicy(space, FORCES), GaussianPolicy(policy_space(space), FORCES)
    obs = rows(4)
    assert torch.equal(whole(obs).mode, alone(obs[:, [0, 1, 2, 6, 7]]).mode)


def test_the_mask_is_not_normalised() -> None:
    normalizer = make_normalizer(SPACE, True)
    obs = rows(50, 4)
    normalizer.update(obs, torch.ones(50, 4, dtype=torch.bool))
    found = normalizer(obs)
    assert torch.allclose(found[..., :2], obs[..., :2])
    assert found[..., 2:].mean((0, 1)).abs().max() < 1e-5
    assert (found[..., 2:].std((0, 1)) - 1).abs().max() < 0.01


def test_numpy_selects_the_entries_too() -> None:
    space = RowWithParts(ROW.low, ROW.high, privileged=(3, 6))
    policy = GaussianPolicy(space, FORCES)
    act = numpy_actor(policy)
    assert act is not None
    obs, noise = rows(4), torch.zeros(4, 2)
    expected = policy(obs).rsample(noise).detach().numpy()
    found = act(obs.numpy(), noise.numpy())[1]
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=1e-6)


def test_a_policy_with_a_mask_has_no_numpy_version() -> None:
    assert numpy_actor(CategoricalPolicy(SPACE, spaces.Discrete(2))) is None
