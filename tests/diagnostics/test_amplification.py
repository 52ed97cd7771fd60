"""The policy's gain and the growth of the adjoint, against what is known."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from pgtoolkit.diagnostics.amplification import adjoint_growth, policy_gain
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy

F64 = torch.float64
OBS = Box(-np.inf, np.inf, (3,), np.float32)
ACTION = Box(-1.0, 1.0, (2,), np.float32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def yes(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def gain(policy: Policy, obs: Tensor, valid: Tensor) -> float:
    found = policy_gain(policy, obs, valid)
    assert found is not None
    return float(found)


def test_a_linear_policys_gain_is_the_norm_of_its_matrix() -> None:
    """The largest singular value, before squashing."""
    policy = GaussianPolicy(OBS, ACTION, ()).double()
    matrix = normal(2, 3)
    with torch.no_grad():
        policy.get_parameter("head.output.weight").copy_(matrix)
    expected = float(torch.linalg.svdvals(matrix)[0])
    assert gain(policy, normal(4, 5, 3, seed=1), yes(4, 5)) == pytest.approx(expected)


def test_the_gain_is_by_the_observation_before_it_is_normalised() -> None:
    """Observations with a standard deviation of 1/100 make the gain a hundred times as large."""
    policy = GaussianPolicy(OBS, ACTION, (), normalize_observations=True).double()
    obs = 0.01 * normal(50, 40, 3)
    policy.normalizer.update(obs, yes(50, 40))
    weight = policy.get_parameter("head.output.weight").detach()
    plain = float(torch.linalg.svdvals(weight)[0])
    assert gain(policy, obs, yes(50, 40)) == pytest.approx(100 * plain, rel=0.05)


def test_the_largest_gain_over_valid_steps_by_finite_differences() -> None:
    """A network: the largest of all steps; a step that is not valid does not count."""
    policy = GaussianPolicy(OBS, ACTION, (16,)).double()
    obs, valid = 2 * normal(3, 4, 3, seed=2), yes(3, 4)
    valid[1, 2] = False
    gains = []
    for row in obs[valid]:
        columns = []
        for axis in torch.eye(3, dtype=F64):
            ends = torch.stack([row - 1e-5 * axis, row + 1e-5 * axis])
            gaussian = policy(ends).gaussian
            assert gaussian is not None
            columns.append((gaussian.mean[1] - gaussian.mean[0]) / 2e-5)
        gains.append(float(torch.linalg.svdvals(torch.stack(columns, 1).detach())[0]))
    assert gain(policy, obs, valid) == pytest.approx(max(gains), rel=1e-6)
    assert all(p.grad is None for p in policy.parameters())


def test_policies_and_observations_without_a_gain() -> None:
    """A discrete policy, images, and a window without a valid step have none."""
    assert policy_gain(CategoricalPolicy(OBS, Discrete(3)), torch.zeros(2, 2, 3), yes(2, 2)) is None
    policy = GaussianPolicy(OBS, ACTION, ())
    assert policy_gain(policy, torch.zeros(2, 2, 3), ~yes(2, 2)) is None
    assert policy_gain(policy, torch.zeros(2, 2, 8, 8, 3, dtype=torch.uint8), yes(2, 2)) is None


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
def test_a_geometric_adjoint_has_its_own_factor(factor: float) -> None:
    """|dJ/du_t| = factor^(T - 1 - t) in every trajectory, whatever their scales are."""
    time = torch.arange(9, -1, -1, dtype=F64)
    adjoint = factor ** time[:, None, None] * normal(1, 6, 2)
    found = adjoint_growth(adjoint, yes(10, 6))
    assert found is not None and float(found) == pytest.approx(factor)


def test_steps_that_are_not_valid_do_not_move_the_growth() -> None:
    """Two of six trajectories end after half of the window; the others keep the factor."""
    time = torch.arange(9, -1, -1, dtype=F64)
    adjoint = (1.2 ** time[:, None, None]).expand(10, 6, 1).clone()
    valid = yes(10, 6)
    valid[5:, :2], adjoint[5:, :2] = False, math.nan
    found = adjoint_growth(adjoint, valid)
    assert found is not None and float(found) == pytest.approx(1.2)


def test_an_adjoint_without_two_steps_has_no_growth() -> None:
    """No slope can be fitted to a single step, or to zeros."""
    assert adjoint_growth(torch.ones(1, 4, 1), yes(1, 4)) is None
    assert adjoint_growth(torch.zeros(8, 4, 1), yes(8, 4)) is None
