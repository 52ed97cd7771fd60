"""Whole episodes: the expected update is the gradient, whatever the lengths of the episodes.

The problem is a fork. At the first step action 0 ends the episode with a reward of 1; action 1 goes
on to the step ``length``, which pays ``bonus``. With ``p`` the probability of action 1,
``dJ/dlogit = p (1 - p) (bonus - 1)``. Later actions change nothing, so the expectation over a batch
is a sum over the first actions of its trajectories.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Env, spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from pgtoolkit.agents.reinforce import Reinforce, ReinforceConfig
from pgtoolkit.rollouts.window import Window

SETTINGS: dict[str, Any] = {
    "rollout": "episodes",
    "gamma": 1.0,
    "hidden": (),
    "learning_rate": 1e-12,
    "vf_learning_rate": 1e-12,
    "max_grad_norm": 1e9,
    "normalize_observations": False,
    "diagnostics_interval": 0,
}


class Fork(Env[Any, Any]):
    """Gives the agent its spaces; the windows are made by hand."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)


def make_agent(p: float, num_envs: int, **settings: Any) -> Reinforce:
    class Starts(Fork):
        def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
            return np.ones(1, np.float32), {}

    env = SyncVectorEnv([Starts] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    config = ReinforceConfig(num_envs=num_envs, **(SETTINGS | settings))
    agent = Reinforce(config, env, total_steps=10**9)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.zero_()
        output(agent)[1, 0] = math.log(p / (1 - p))
    return agent


def output(agent: Reinforce) -> Tensor:
    """The logits' weights: the first observation is 1, all later ones are 0."""
    return dict(agent.policy.named_parameters())["head.output.weight"]


def episodes(first: tuple[int, ...], length: int, bonus: float) -> Window:
    """One episode of every environment, by the first action of each."""
    goes_on = torch.tensor(first) == 1
    num_steps, num_envs = (length if any(first) else 1), len(first)
    step = torch.arange(num_steps).unsqueeze(1).expand(-1, num_envs)
    last = torch.where(goes_on, length - 1, 0)
    obs = (step == 0).float().unsqueeze(-1)
    action = torch.where(step == 0, goes_on.long(), 0)
    reward = torch.where(goes_on, bonus, 1.0) * (step == last)
    return Window(
        obs=obs,
        next_obs=torch.zeros_like(obs),
        noise=torch.zeros(num_steps, num_envs, 2),
        pre_action=action,
        action=action,
        log_prob=torch.zeros(num_steps, num_envs),
        reward=reward,
        terminated=step == last,
        truncated=torch.zeros(num_steps, num_envs, dtype=torch.bool),
        valid=step <= last,
    )


def expected_update(
    p: float, num_envs: int, length: int, bonus: float, **settings: Any
) -> tuple[float, Reinforce]:
    """The mean over all batches of the change that the gradient asks for, in the logit."""
    agent, total = make_agent(p, num_envs, **settings), 0.0
    for first in itertools.product((0, 1), repeat=num_envs):
        agent.update(episodes(first, length, bonus))
        gradient = output(agent).grad
        assert gradient is not None
        probability = math.prod(p if a else 1 - p for a in first)
        total -= probability * float(gradient[1, 0])
    return total, agent


@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "value"])
@pytest.mark.parametrize("advantage", ["return", "reward_to_go"])
@pytest.mark.parametrize(
    ("p", "num_envs", "length", "bonus"),
    [(0.2, 4, 10, 1.1), (0.05, 4, 10, 1.1), (0.2, 4, 40, 1.1), (0.7, 3, 5, 0.8)],
)
def test_the_expected_update_on_a_fork_is_the_gradient(
    baseline: Any, advantage: Any, p: float, num_envs: int, length: int, bonus: float
) -> None:
    """By enumeration, times the constant ``n_steps``; with another length too it is the same."""
    update, agent = expected_update(
        p, num_envs, length, bonus, baseline=baseline, advantage=advantage
    )
    true = p * (1 - p) * (bonus - 1)
    assert update * agent.config.n_steps == pytest.approx(true, rel=1e-4)


def test_the_gradient_is_in_units_of_n_steps() -> None:
    """Half the setting ``n_steps`` doubles the gradient, and leaves its direction."""
    settings: dict[str, Any] = {"baseline": "none", "advantage": "return"}
    long, _ = expected_update(0.3, 2, 7, 1.5, n_steps=64, **settings)
    short, _ = expected_update(0.3, 2, 7, 1.5, n_steps=32, **settings)
    assert short == pytest.approx(2 * long)
