"""The running mean of the policies that acted, which agents evaluate and save."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.agent import evaluated_policy
from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.agents.reppo import Reppo, ReppoConfig

Averaging = Ppo | Reppo
SMALL: dict[str, Any] = {
    "num_envs": 2,
    "n_steps": 8,
    "batch_size": 8,
    "n_epochs": 1,
    "hidden": (8,),
    "normalize_observations": True,
}


def ppo(decay: float) -> Ppo:
    return Ppo(PpoConfig(policy_average=decay, **SMALL), "pgtoolkit/Pendulum-v0", seed=0)


def reppo(decay: float) -> Reppo:
    return Reppo(ReppoConfig(policy_average=decay, **SMALL), "pgtoolkit/Pendulum-v0", seed=0)


both = pytest.mark.parametrize("make", [ppo, reppo])


@both
def test_the_policy_that_is_evaluated_is_the_mean_of_those_that_acted(
    make: Callable[[float], Averaging],
) -> None:
    """``mean <- d mean + (1 - d) policy``, ``d = min(0.3, n / (n + 9))``; buffers are the last."""
    agent = make(0.3)
    assert evaluated_policy(agent) is agent.averaged_policy
    mean: dict[str, Tensor] = {}
    for n in range(6):
        agent.update(agent.collect())
        kept = min(0.3, n / (n + 9))
        for name, parameter in agent.policy.named_parameters():
            x = parameter.detach().double()
            mean[name] = kept * mean[name] + (1 - kept) * x if n else x
    for name, parameter in agent.averaged_policy.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), mean[name], rtol=1e-6, atol=1e-7)
    buffers = zip(agent.averaged_policy.buffers(), agent.policy.buffers(), strict=True)
    assert all(torch.equal(mine, its) for mine, its in buffers)


@both
def test_without_an_average_the_policy_itself_is_evaluated(
    make: Callable[[float], Averaging],
) -> None:
    agent = make(0.0)
    for _ in range(2):
        agent.update(agent.collect())
    pairs = zip(evaluated_policy(agent).parameters(), agent.policy.parameters(), strict=True)
    assert all(torch.equal(mine, its) for mine, its in pairs)


@both
def test_the_average_changes_nothing_that_is_learned(make: Callable[[float], Averaging]) -> None:
    """The policy acts, so runs with and without an average have the same policies."""
    agents = [make(decay) for decay in (0.0, 0.9)]
    for agent in agents:
        for _ in range(3):
            agent.update(agent.collect())
    pairs = zip(*(agent.policy.parameters() for agent in agents), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
