"""npg and trpo against an update that is computed by hand, and that they learn."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.agents.npg import Npg, NpgConfig
from pgtoolkit.agents.trpo import Trpo, TrpoConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.rollouts.evaluation import evaluate
from pgtoolkit.rollouts.window import Window

STEPS, ENVS, GAMMA, LAMBDA, TARGET, DAMPING = 3, 2, 0.9, 0.8, 0.05, 0.1
AGENTS: dict[str, tuple[Any, Any]] = {"npg": (Npg, NpgConfig), "trpo": (Trpo, TrpoConfig)}


def linear_agent(name: str) -> Any:
    """A policy without hidden layers, ``mean = K s + k``, and one step of its value function."""
    kind, config = AGENTS[name]
    settings = config(
        num_envs=ENVS,
        n_steps=STEPS,
        hidden=(),
        gamma=GAMMA,
        gae_lambda=LAMBDA,
        target_kl=TARGET,
        cg_damping=DAMPING,
        cg_iterations=50,
        normalize_rewards=False,
        vf_epochs=1,
        vf_minibatches=1,
        vf_learning_rate=0.01,
    )
    return kind(settings, DifferentiableVectorEnv(Pendulum(), ENVS), seed=3)


def advantages(window: Window, value: Any) -> Tensor:
    """GAE ``[T, N]`` from its recursion; no episode of Pendulum ends in three steps."""
    v, after = value(window.obs), value(window.next_obs)
    found, last = torch.zeros(STEPS, ENVS), torch.zeros(ENVS)
    for t in reversed(range(STEPS)):
        last = window.reward[t] + GAMMA * after[t] - v[t] + GAMMA * LAMBDA * last
        found[t] = last
    return found


def natural_step_by_hand(agent: Any, window: Window, advantage: Tensor) -> Tensor:
    """``[K..., k, log sigma]``, from the dense Fisher information of a linear Gaussian."""
    distribution = agent.policy(window.obs)
    mean, log_std = distribution.gaussian
    deviation, variance = window.pre_action - mean, (2 * log_std).exp()
    x = torch.cat([window.obs, torch.ones(STEPS, ENVS, 1)], -1)
    by_weights = (advantage[..., None] * deviation / variance * x).sum((0, 1))
    by_log_std = (advantage[..., None] * (deviation.square() / variance - 1)).sum((0, 1))
    gradient = torch.cat([by_weights, by_log_std]).double() / (ENVS * STEPS)
    fisher = torch.zeros(5, 5, dtype=torch.float64)
    rows = x.reshape(-1, 4).double()
    fisher[:4, :4] = rows.T @ rows / len(rows) / float(variance.flatten()[0])
    fisher[4, 4] = 2
    fisher += DAMPING * torch.eye(5, dtype=torch.float64)
    direction = torch.linalg.solve(fisher, gradient)
    length = math.sqrt(2 * TARGET / float(direction @ fisher @ direction))
    found: Tensor = length * direction
    return found


def flat(policy: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in policy.parameters()]).double()


def shrunk_by_hand(agent: Any, window: Window, advantage: Tensor, change: Tensor) -> Tensor:
    """The first of ``0.8^k`` times the step that improves ``sum rho A`` within the bound."""
    for trial in range(10):
        moved = copy.deepcopy(agent.policy)
        torch.nn.utils.vector_to_parameters(
            (flat(moved) + 0.8**trial * change).float(), moved.parameters()
        )
        old, new = agent.policy(window.obs), moved(window.obs)
        ratio = (
            new.log_prob_of_pre_action(window.pre_action)
            - old.log_prob_of_pre_action(window.pre_action)
        ).exp()
        kl = old.kl_divergence(new).mean()
        if bool(((ratio - 1) * advantage).mean() > 0) and bool(kl <= TARGET):
            return 0.8**trial * change
    return torch.zeros_like(change)


@pytest.mark.parametrize("name", AGENTS)
def test_an_update_is_the_one_computed_by_hand(name: str) -> None:
    """Policy and value function, on two trajectories of three steps; each number by its formula."""
    agent = linear_agent(name)
    before, window = flat(agent.policy), agent.collect()
    with torch.no_grad():
        advantage = advantages(window, agent.value.module)
        change = natural_step_by_hand(agent, window, advantage)
        if name == "trpo":
            change = shrunk_by_hand(agent, window, advantage, change)
    value = copy.deepcopy(agent.value.module)
    target = advantage + value(window.obs).detach()
    adam = torch.optim.Adam(value.parameters(), 0.01)
    (value(window.obs) - target).square().mean().backward()
    adam.step()
    metrics = agent.update(window)
    torch.testing.assert_close(flat(agent.policy) - before, change, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(agent.value.module.parameters(), value.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert 0 < float(metrics["train/kl"]) < 2 * TARGET


def test_trpo_stays_within_its_bound_in_every_update() -> None:
    """By the exact divergence on the window; a step that is rejected has none."""
    config = TrpoConfig(num_envs=8, n_steps=32, hidden=(16,))
    agent = Trpo(config, DifferentiableVectorEnv(Pendulum(), 8), seed=0)
    taken = 0
    for _ in range(12):
        metrics = agent.update(agent.collect())
        assert float(metrics["train/kl"]) <= config.target_kl
        taken += float(metrics["train/step_rejected"]) == 0
    assert taken > 6


@pytest.mark.parametrize("name", AGENTS)
def test_they_balance_the_cart_pole(name: str) -> None:
    """CartPole-v1 in 40,000 steps: above 195, its old threshold; 500 is the most."""
    kind, config = AGENTS[name]
    agent = kind(config(), make_vector_env(find_env("CartPole-v1"), 8), seed=0)
    while agent.collector.num_steps < 40_000:
        agent.update(agent.collect())
    env = make_vector_env(find_env("CartPole-v1"), 10)
    cpu = torch.device("cpu")
    assert evaluate(env, agent.policy, episodes=10, seed=7, device=cpu).mean_return > 195
