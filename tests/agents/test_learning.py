"""Learning, in seconds where it can be, and to published returns behind the marker ``slow``."""

from typing import Any

import pytest
import torch

from pgtoolkit.agents.apg import Apg, ApgConfig
from pgtoolkit.agents.reinforce import Reinforce, ReinforceConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.rollouts.evaluation import evaluate


def learn(agent: Any, total_steps: int) -> None:
    while agent.collector.num_steps < total_steps:
        agent.update(agent.collect())


def mean_return(agent: Any, env: Any, episodes: int) -> float:
    cpu = torch.device("cpu")
    policy = agent.policy
    return evaluate(env, policy, episodes=episodes, seed=7, device=cpu).mean_return


@pytest.mark.parametrize("agent_class", [Apg, Shac])
def test_pathwise_agents_halve_the_cost_of_a_point_mass(agent_class: Any) -> None:
    """In 20,000 steps, a few seconds, the return rises by half of its distance from 0."""
    config = {Apg: ApgConfig, Shac: ShacConfig}[agent_class](num_envs=32, n_steps=16)
    env = DifferentiableVectorEnv(PointMass(), 32)
    agent = agent_class(config, env, total_steps=20_000)
    test_env = DifferentiableVectorEnv(PointMass(), 64)
    before = mean_return(agent, test_env, 64)
    learn(agent, 20_000)
    assert mean_return(agent, test_env, 64) > 0.5 * before


def test_reinforce_balances_the_cart_pole() -> None:
    """CartPole-v1 in 40,000 steps: above 195, its old threshold; 500 is the most."""
    env = make_vector_env(find_env("CartPole-v1"), 16)
    agent = Reinforce(ReinforceConfig(), env, total_steps=40_000)
    learn(agent, 40_000)
    assert mean_return(agent, make_vector_env(find_env("CartPole-v1"), 10), 10) > 195


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shac_solves_gymnasium_pendulum(seed: int) -> None:
    """Trained on our dynamics with the defaults, it scores at least -200 on Gymnasium's own."""
    env = DifferentiableVectorEnv(Pendulum(), ShacConfig().num_envs)
    agent = Shac(ShacConfig(), env, seed=seed, total_steps=500_000)
    learn(agent, 500_000)
    assert mean_return(agent, make_vector_env(find_env("Pendulum-v1"), 20), 100) >= -200


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reinforce_solves_inverted_pendulum(seed: int) -> None:
    """MuJoCo's InvertedPendulum-v5 with the defaults: at least 900 of 1000 within 500k steps."""
    source = find_env("InvertedPendulum-v5")
    env = make_vector_env(source, ReinforceConfig().num_envs)
    agent = Reinforce(ReinforceConfig(), env, seed=seed, total_steps=500_000)
    learn(agent, 500_000)
    assert mean_return(agent, make_vector_env(source, 20), 20) >= 900
