"""The deterministic policy as a graph: its actions, dtypes and bounds."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.errors import RequestError
from pgtoolkit.policies.action_graph import ActionGraph, observation_dtype
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.given_action import given_action
from tests.policies.exported_policies import (
    BOUNDED,
    CASES,
    EXACT,
    GREY,
    TENTHS,
    VECTOR,
    WHOLE,
    Case,
    shaken_policy,
    wide_observations,
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_its_actions_are_those_that_the_environment_is_given(case: Case) -> None:
    """To the bit, but for the median of a beta policy. Members of the action space, not all equal.

    The observations change their dtype on the way, from that of rollouts to the graph's.
    """
    policy = shaken_policy(case)
    observations = wide_observations(case, policy)
    graph = ActionGraph(policy, case.observation_space, case.action_space)
    with torch.no_grad():
        expected = given_action(case.action_space)(policy(observations).mode.numpy())
        found = graph(observations.to(graph.observation_dtype)).numpy()
    assert found.dtype == expected.dtype == case.action_space.dtype
    tolerance = 1e-6 if case.settings.distribution == "beta" else 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    assert all(case.action_space.contains(action) for action in found)
    assert len(np.unique(found, axis=0)) > 2


def test_the_cases_reach_what_they_are_for() -> None:
    """Some actions are at a bound, and each component of the mixture is the heaviest somewhere."""
    case = CASES["clipped"]
    policy = shaken_policy(case)
    actions = policy(wide_observations(case, policy)).mode
    low, high = torch.from_numpy(BOUNDED.low), torch.from_numpy(BOUNDED.high)
    assert bool(((actions == low) | (actions == high)).any(0).all())
    case = CASES["mixture without bounds"]
    policy = shaken_policy(case)
    mixture = policy(wide_observations(case, policy))
    assert isinstance(mixture, GaussianMixture)
    assert len(set(mixture.logits.argmax(-1).tolist())) > 1


def test_large_observations_are_told_apart() -> None:
    """1.7e9 and 1.7e9 + 1, half a standard deviation apart, are one number in float32."""
    case = CASES["gaussian with bounds of float64"]
    graph = ActionGraph(shaken_policy(case), case.observation_space, case.action_space)
    rows = torch.tensor([[1.7e9, -3.0, 0.0], [1.7e9 + 1, -3.0, 0.0]], dtype=torch.float64)
    first, second = graph(rows)
    assert float((first - second).abs().max()) > 1e-3
    assert torch.equal(*rows.float())


def test_the_dtype_holds_every_observation() -> None:
    spaces_ = (VECTOR, EXACT, WHOLE, GREY, spaces.Box(0, 255, (128,), np.uint8))
    found = [observation_dtype(space).name for space in spaces_]
    assert found == ["float32", "float64", "float64", "uint8", "float32"]


def test_bounds_are_those_of_the_spaces_dtype() -> None:
    """0.1 of float32 is above 0.1 of float64, and would be refused by ``contains``."""
    policy = GaussianPolicy(VECTOR, TENTHS, ())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(100.0)
    action = ActionGraph(policy, VECTOR, TENTHS)(torch.ones(1, 3))
    assert action.dtype == torch.float64 and action.tolist() == [[0.1, 0.1]]
    assert float(policy(torch.ones(1, 3)).mode[0, 0].detach()) > 0.1


def test_the_policy_is_copied() -> None:
    policy = GaussianPolicy(VECTOR, BOUNDED, ())
    graph = ActionGraph(policy, VECTOR, BOUNDED)
    before = graph(torch.ones(1, 3))
    with torch.no_grad():
        policy.head.output.bias.add_(1.0)  # type: ignore[operator, union-attr]
    assert torch.equal(graph(torch.ones(1, 3)), before)
    assert all(parameter.requires_grad for parameter in policy.parameters())
    assert not any(parameter.requires_grad for parameter in graph.parameters())


def test_a_dtype_that_torch_has_not_is_refused() -> None:
    wide = spaces.Box(-1, 1, (2,), np.longdouble)
    with pytest.raises(RequestError, match="no exported file can have"):
        ActionGraph(GaussianPolicy(VECTOR, BOUNDED), VECTOR, wide)
