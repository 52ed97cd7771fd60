"""Actions of the NumPy policy against those of the policy in torch."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.numpy_policy import numpy_actor
from pgtoolkit.policies.policy import Policy

OBS = Box(-np.inf, np.inf, (5,), np.float32)
BOUNDED = Box(np.array([-1, 0], np.float32), np.array([2, 5], np.float32))
FREE = Box(-np.inf, np.inf, (2,), np.float32)
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "elu", "silu", "relu"])
@pytest.mark.parametrize("actions", [BOUNDED, FREE, Discrete(4)], ids=["bounded", "free", "choice"])
def test_it_acts_as_torch_does(
    actions: Any, activation: Any, layer_norm: bool, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    kind: Any = CategoricalPolicy if isinstance(actions, Discrete) else GaussianPolicy
    policy = kind(
        OBS,
        actions,
        (8, 6),
        activation=activation,
        layer_norm=layer_norm,
        normalize_observations=True,
        generator=generator,
    ).to(dtype)
    rows = 3 * torch.randn(7, 9, 5, generator=generator) + 1
    policy.normalizer.update(rows, torch.ones(7, 9, dtype=torch.bool))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=dtype))
    obs = (5 * torch.randn(9, 5, generator=generator)).to(dtype)
    noise = policy.draw_noise(9, generator=generator).to(dtype)
    act = numpy_actor(policy)
    assert act is not None
    pre_action, action = act(obs.numpy(), noise.numpy())
    with torch.no_grad():
        distribution = policy(obs)
        expected = distribution.pre_action(noise)
        squashed = distribution.squash(expected)
    assert pre_action.dtype == expected.numpy().dtype
    np.testing.assert_allclose(
        np.asarray(pre_action, float), expected, TOLERANCE[dtype], 10 * TOLERANCE[dtype]
    )
    np.testing.assert_allclose(
        np.asarray(action, float), squashed, TOLERANCE[dtype], 10 * TOLERANCE[dtype]
    )


MIXED = Box(
    np.array([10, -0.005, 0, 3, -np.inf, -1e38], np.float32),
    np.array([20, 0.005, np.inf, 3, 2, 1e38], np.float32),
)
"""Offset, narrow, bounded on one side, without width, and too large to count."""


def same_as_torch(policy: Policy, obs: torch.Tensor, noise: torch.Tensor, tolerance: float) -> Any:
    """The NumPy pre-actions and actions, which are those of torch up to the tolerance."""
    act = numpy_actor(policy)
    assert act is not None
    found = act(obs.numpy(), noise.numpy())
    with torch.no_grad():
        distribution = policy(obs)
        expected = distribution.pre_action(noise), distribution.rsample(noise)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a, float), b, tolerance, tolerance)
    return found


@pytest.mark.parametrize("actions", [BOUNDED, FREE, MIXED], ids=["bounded", "free", "mixed"])
def test_a_clipped_gaussian_acts_as_in_torch(actions: Box) -> None:
    generator = torch.Generator().manual_seed(0)
    settings, size = PpoConfig(hidden=(8,), log_std_init=0.5), actions.shape[0]
    policy = make_policy(settings, OBS, actions, generator)
    obs, noise = torch.randn(9, 5, generator=generator), torch.randn(9, size, generator=generator)
    _, action = same_as_torch(policy, obs, noise, 1e-6)
    assert all(actions.contains(row) for row in action)


def test_it_follows_parameters_that_change_in_place() -> None:
    policy = GaussianPolicy(OBS, FREE, (4,))
    act = numpy_actor(policy)
    assert act is not None
    with torch.no_grad():
        assert isinstance(policy.head, GaussianHead)
        policy.head.output.bias.fill_(7.0)
    zeros = np.zeros((1, 5), np.float32)
    assert act(zeros, np.zeros((1, 2), np.float32))[0].tolist() == [[7.0, 7.0]]


def test_what_it_does_not_know_acts_by_torch() -> None:
    policy = GaussianPolicy(OBS, FREE, (4,))
    assert isinstance(policy.torso, torch.nn.Sequential)
    policy.torso.append(torch.nn.Softplus())
    assert numpy_actor(policy) is None


@pytest.mark.parametrize("std", ["state_independent", "state_dependent", "state_dependent_clamped"])
@pytest.mark.parametrize("actions", [BOUNDED, FREE], ids=["bounded", "free"])
def test_every_standard_deviation_is_that_of_torch(actions: Box, std: Any) -> None:
    """Also where the limit of a standard deviation that depends on the state is at work."""
    generator = torch.Generator().manual_seed(0)
    policy = GaussianPolicy(OBS, actions, (6,), std=std, log_std_init=-0.3, generator=generator)
    with torch.no_grad():
        policy.get_parameter("head.output.weight").mul_(1000)  # the head starts small
    obs, noise = torch.randn(50, 5, generator=generator), torch.randn(50, 2, generator=generator)
    same_as_torch(policy, obs, noise, 1e-5)


def test_a_large_negative_feature_gives_no_warning() -> None:
    policy = GaussianPolicy(OBS, FREE, (4,), activation="silu")
    act = numpy_actor(policy)
    assert act is not None
    with np.errstate(all="raise"):
        pre_action, _ = act(np.full((1, 5), -1e6, np.float32), np.zeros((1, 2), np.float32))
    assert np.isfinite(np.asarray(pre_action, float)).all()


@pytest.mark.parametrize("actions", [BOUNDED, Discrete(3)], ids=["bounded", "choice"])
def test_large_observations_are_normalised_in_double_precision(actions: Any) -> None:
    """Around 1.7e9 it acts as torch does, and differently at observations that differ by 1."""
    generator = torch.Generator().manual_seed(0)
    settings = PpoConfig(hidden=(8,), normalize_observations=True)
    space = Box(-np.inf, np.inf, (5,), np.float64)
    policy = make_policy(settings, space, actions, generator)
    with torch.no_grad():
        policy.get_parameter("head.output.weight").mul_(100)  # the head starts small
    obs = 1.7e9 + torch.randint(2, (9, 5), generator=generator).double()
    policy.normalizer.update(obs.unsqueeze(0), torch.ones(1, 9, dtype=torch.bool))
    noise = torch.zeros(9, policy.noise_size)
    act = numpy_actor(policy)
    assert act is not None
    pre_action: Any = act(obs.numpy(), noise.numpy())[0]
    with torch.no_grad():
        expected = policy(obs).pre_action(noise).numpy()
    assert pre_action.dtype == expected.dtype
    np.testing.assert_allclose(pre_action, expected, 1e-5, 1e-5)
    assert len(np.unique(pre_action, axis=0)) > 1
