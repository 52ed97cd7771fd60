"""SAPO: its update by hand, defects of published code, and that it learns."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.agents.sapo import Sapo, SapoConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import SettingError
from pgtoolkit.rollouts.evaluation import evaluate
from tests.agents.linear_path import (
    LinearPolicy,
    Path,
    assert_stepped,
    lambda_returns,
    replay,
    start_of,
    values,
)

STEPS, ENVS, GAMMA, LAMBDA = 3, 2, 0.9, 0.7
LINEAR: dict[str, Any] = {
    "num_envs": ENVS,
    "n_steps": STEPS,
    "hidden": (),
    "first_bias": 0.0,
    "estimator": "pathwise",
    "compile": "never",
    "normalize_observations": False,
    "gamma": GAMMA,
    "gae_lambda": LAMBDA,
    "ent_coef_relative": 0.6,
    "ent_coef_learning_rate": 0.02,
    "target_entropy": -0.3,
    "learning_rate": 0.1,
    "vf_learning_rate": 0.02,
    "vf_epochs": 1,
    "vf_minibatches": 1,
    "max_grad_norm": 1e6,
    "learning_rate_schedule": "constant",
    "diagnostics_interval": 0,
}
HALVES = [(True, True), (True, False), (False, True), (False, False)]


def linear_agent(**more: Any) -> Sapo:
    """On the pendulum, with two states from which nothing saturates."""
    return Sapo(SapoConfig(**(LINEAR | more)), DifferentiableVectorEnv(Pendulum(), ENVS), seed=3)


def entropies(path: Path) -> Tensor:
    """``alpha u (H - target) / A`` ``[T, N]``, of one action dimension."""
    unit = path.reward.detach().std(unbiased=False)
    return 0.6 * unit * (path.log_std + 0.5 * math.log(2 * math.pi * math.e) + 0.3)


def objective(path: Path, value: Any, *, in_return: bool) -> Tensor:
    """``J`` ``[N]``, with the mean of the value functions at the state after the last step."""
    discount = GAMMA ** torch.arange(STEPS, dtype=torch.float64).unsqueeze(1)
    reward = path.reward + entropies(path) if in_return else path.reward
    return (discount * reward).sum(0) + GAMMA**STEPS * values(value, path.next_obs[-1]).mean(0)


@pytest.mark.parametrize(("in_return", "in_value"), HALVES)
def test_an_update_is_the_one_computed_by_hand(in_return: bool, in_value: bool) -> None:
    """Policy, both value functions and temperature, on two trajectories of three steps.

    The gradient of the policy is that of one graph through the environment, the entropies and the
    value functions: along the path, and directly.
    """
    agent = linear_agent(entropy_in_return=in_return, entropy_in_value=in_value)
    policy, state = LinearPolicy(agent.policy), start_of(agent)
    value = copy.deepcopy(agent.value.module)
    window = agent.collect()
    path = replay(policy, state, window.noise)
    loss = -objective(path, value, in_return=in_return).mean() / STEPS
    climbed = list(torch.autograd.grad(loss, policy.parameters, retain_graph=True))
    rewards = path.reward + entropies(path) if in_value else path.reward
    least = values(value, path.next_obs).amin(0)
    target = lambda_returns(rewards, least, GAMMA, LAMBDA).detach()
    critic = copy.deepcopy(value).double()
    error = (critic(path.obs.detach()) - target).square().mean((1, 2)).sum()
    fitted = list(torch.autograd.grad(error, list(critic.parameters())))
    excess = float(path.log_std.detach().mean()) + 0.5 * math.log(2 * math.pi * math.e) + 0.3

    metrics = agent.update(window)
    betas = agent.config.adam_betas
    assert_stepped(agent.policy, policy.parameters, climbed, lr=0.1, betas=betas)
    assert_stepped(agent.value.module, critic.parameters(), fitted, lr=0.02, betas=betas)
    step = 0.02 * math.copysign(1, -excess)  # the first step of Adam has the learning rate's size
    assert float(agent.entropy.alpha) == pytest.approx(0.6 * math.exp(step), rel=1e-4)
    assert float(metrics["train/ent_coef"]) == pytest.approx(0.6)
    assert float(metrics["train/ent_coef_loss"]) == pytest.approx(0.6 * excess, rel=1e-4)


def test_the_entropies_of_later_states_are_a_part_of_the_gradient() -> None:
    """Without a reward and a value, an action is climbed for the states that it leads to."""
    agent = linear_agent()
    policy, state = LinearPolicy(agent.policy), start_of(agent)
    path = replay(policy, state, agent.collect().noise)
    along = entropies(path)[1:].sum()
    (through,) = torch.autograd.grad(along, policy.b, retain_graph=True)
    states = path.obs.detach()
    _, log_std = policy.gaussian(states)
    (direct,) = torch.autograd.grad(log_std[1:].sum(), policy.b)
    assert float(direct[0]) == 0  # the bias of the mean enters no entropy directly
    assert abs(float(through[0])) > 1e-4


def test_values_are_of_the_state_after_a_step_and_not_of_the_one_before() -> None:
    """The published code takes ``V(s_t)`` for ``V(s_{t+1})`` where an encoder is shared.

    Moving the observation after the last step by hand must change both objective and targets;
    with the defect it would change neither.
    """
    moved = []
    for shift in (0.0, 0.5):
        agent = linear_agent()
        window = agent.collect()
        last = torch.zeros_like(window.next_obs)
        last[-1] = shift
        agent.update(dataclasses.replace(window, next_obs=window.next_obs + last))
        moved.append([p.detach().clone() for p in agent.value.module.parameters()])
    assert any(not torch.equal(a, b) for a, b in zip(*moved, strict=True))


def test_the_value_functions_are_two() -> None:
    """Published code of a related agent has two of which both are made of the same layers."""
    module: Any = linear_agent(hidden=(4,)).value.module
    first, second = ([p.detach() for p in member.parameters()] for member in module.members)
    addresses = {p.data_ptr() for p in (*first, *second)}
    assert len(addresses) == len(first) + len(second)
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize(("log_std", "rises"), [(-4.0, True), (0.0, False)])
def test_the_temperature_moves_the_entropy_towards_its_target(log_std: float, rises: bool) -> None:
    """Below the target, -1/2 nats or a standard deviation of 0.15, it rises; above, it falls."""
    config = SapoConfig(num_envs=4, n_steps=4, hidden=(4,), log_std_init=log_std, compile="never")
    agent = Sapo(config, DifferentiableVectorEnv(Pendulum(), 4))
    before = float(agent.entropy.alpha)
    agent.update(agent.collect())
    assert (float(agent.entropy.alpha) > before) == rises


def test_a_distribution_without_an_exact_entropy_is_refused() -> None:
    with pytest.raises(SettingError, match="distribution must be"):
        SapoConfig(distribution="mixture")


def test_it_is_shac_where_entropy_counts_nowhere() -> None:
    """One value function, no entropy and shac's settings: the same bits."""
    sizes: dict[str, Any] = {"num_envs": 6, "n_steps": 8, "hidden": (8,), "compile": "never"}
    env = DifferentiableVectorEnv(Pendulum(), 6)
    shac = Shac(ShacConfig(**sizes, ent_coef_relative=0.0), env, seed=1)
    same = {
        field.name: getattr(shac.config, field.name) for field in dataclasses.fields(ShacConfig)
    }
    same = {name: same[name] for name in same if name not in ("ent_coef", "ent_coef_relative")}
    config = SapoConfig(**same, num_critics=1, entropy_in_return=False, entropy_in_value=False)
    sapo = Sapo(config, DifferentiableVectorEnv(Pendulum(), 6), seed=1)
    for _ in range(3):
        shac.update(shac.collect())
        sapo.update(sapo.collect())
    for ours, theirs in zip(sapo.policy.parameters(), shac.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_it_halves_the_cost_of_a_point_mass() -> None:
    """In 20,000 steps, a few seconds, the return rises by half of its distance from 0."""
    env, cpu = DifferentiableVectorEnv(PointMass(), 64), torch.device("cpu")
    config = SapoConfig(num_envs=32, n_steps=16)
    agent = Sapo(config, DifferentiableVectorEnv(PointMass(), 32), total_steps=20_000)

    def mean_return() -> float:
        return evaluate(env, agent.policy, episodes=64, seed=7, device=cpu).mean_return

    before = mean_return()
    while agent.collector.num_steps < 20_000:
        agent.update(agent.collect())
    assert mean_return() > 0.5 * before
