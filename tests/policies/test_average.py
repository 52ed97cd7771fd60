"""The running mean of a policy's parameters."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.policies.average import running_average
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import HeadPolicy

SPACE = Box(-1.0, 1.0, (2,), np.float32)


def filled(policy: HeadPolicy, value: float) -> HeadPolicy:
    """The policy with this value in all parameters."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(value)
    return policy


def values(module: torch.nn.Module) -> Tensor:
    return torch.cat([x.detach().flatten() for x in module.parameters()])


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.9])
def test_the_weights_fall_geometrically_after_a_warm_up(decay: float) -> None:
    """Against the sum over the policies with their weights written out."""
    policy = GaussianPolicy(SPACE, SPACE, (4,))
    average = running_average(policy, decay)
    given = [3.0, -1.0, 2.0, 0.5, 7.0, -4.0]
    for value in given:
        average.update_parameters(filled(policy, value))
    kept = [min(decay, n / (n + 9)) for n in range(len(given))]
    weights = [(1 - kept[n]) * float(np.prod(kept[n + 1 :])) for n in range(len(given))]
    assert sum(weights) == pytest.approx(1.0)
    expected = sum(w * x for w, x in zip(weights, given, strict=True))
    found = values(average.module)
    torch.testing.assert_close(found, torch.full_like(found, expected))


def test_before_the_first_update_it_is_the_policy_and_no_view_of_it() -> None:
    policy = filled(GaussianPolicy(SPACE, SPACE, (4,)), 1.0)
    average = running_average(policy, 0.9)
    filled(policy, 2.0)
    assert (values(average.module) == 1).all()
