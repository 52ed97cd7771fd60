"""AHAC: its update by hand, the horizon it settles at, defects of published code, learning."""

import copy
import math
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.agents.ahac import Ahac, AhacConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError, SettingError
from pgtoolkit.rollouts.evaluation import evaluate
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint
from tests.agents.linear_path import (
    LinearPolicy,
    assert_stepped,
    lambda_returns,
    replay,
    start_of,
    values,
)

STEPS, ENVS, GAMMA, LAMBDA, BOUND = 3, 4, 0.9, 0.7, 1.05
LINEAR: dict[str, Any] = {
    "num_envs": ENVS,
    "n_steps": STEPS,
    "horizon_min": 1,
    "horizon_max": 9,
    "amplification_bound": BOUND,
    "dual_rate": 0.2,
    "horizon_rate": 1.5,
    "hidden": (),
    "std": "state_dependent",
    "first_bias": 0.0,
    "estimator": "pathwise",
    "compile": "never",
    "normalize_observations": False,
    "ent_coef_relative": 0.0,
    "gamma": GAMMA,
    "gae_lambda": LAMBDA,
    "learning_rate": 0.1,
    "vf_learning_rate": 0.02,
    "vf_epochs": 1,
    "vf_minibatches": 1,
    "max_grad_norm": 1e6,
    "learning_rate_schedule": "constant",
    "diagnostics_interval": 0,
}


def test_an_update_is_the_one_computed_by_hand() -> None:
    """Policy, both value functions and the horizon, on four trajectories of three steps."""
    agent = Ahac(AhacConfig(**LINEAR), DifferentiableVectorEnv(Pendulum(), ENVS), seed=3)
    policy, state = LinearPolicy(agent.policy), start_of(agent)
    value, window = copy.deepcopy(agent.value.module), agent.collect()
    noise = window.noise.double().requires_grad_()
    path = replay(policy, state, noise)
    discount = GAMMA ** torch.arange(STEPS, dtype=torch.float64).unsqueeze(1)
    least = values(value, path.next_obs).amin(0)
    objective = (discount * path.reward).sum(0) + GAMMA**STEPS * least[-1]
    loss = -objective.mean() / STEPS
    climbed = list(torch.autograd.grad(loss, policy.parameters, retain_graph=True))
    (by_noise,) = torch.autograd.grad(objective.sum(), noise, retain_graph=True)
    adjoint = by_noise.squeeze(-1) / path.log_std.detach().exp() / discount
    size = adjoint.square().mean(1).sqrt().flip(0)  # by the distance from the window's end
    excess = (size / size[0]).log() - math.log(BOUND)
    duals = (0.2 * excess).clamp(min=0)
    change = 1.5 * (1 - float((duals + excess).clamp(min=0).sum()))
    target = lambda_returns(path.reward, least, GAMMA, LAMBDA).detach()
    critic = copy.deepcopy(value).double()
    error = (critic(path.obs.detach()) - target).square().mean((1, 2)).sum()
    fitted = list(torch.autograd.grad(error, list(critic.parameters())))

    metrics = agent.update(window)
    betas = agent.config.adam_betas
    assert_stepped(agent.policy, policy.parameters, climbed, lr=0.1, betas=betas)
    assert_stepped(agent.value.module, critic.parameters(), fitted, lr=0.02, betas=betas)
    torch.testing.assert_close(agent.horizon.duals[:STEPS], duals, rtol=1e-3, atol=1e-5)
    assert agent.horizon.length == pytest.approx(STEPS + max(change, -1.5), rel=1e-3)
    assert float(metrics["train/horizon_amplification"]) == pytest.approx(
        float((size / size[0]).amax()), rel=1e-3
    )
    assert float(excess.amax()) > 0  # a multiplier that is not 0 was compared


def test_the_gradient_is_that_of_a_mean_over_the_steps_of_its_window() -> None:
    """Not over those of the first window: a step would otherwise grow with the horizon."""
    gradients = []
    for steps in (4, 8):
        small = LINEAR | {"n_steps": steps}
        agent = Ahac(AhacConfig(**small), DifferentiableVectorEnv(Pendulum(), ENVS), seed=3)
        agent.horizon.length = 8.0
        agent.update(agent.collect())
        gradients.append([p.grad for p in agent.policy.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


@final
class Amplifier(DifferentiableEnv[Tensor]):
    """The slopes of a line ``s' = a s + u`` that pays ``s'``; its values stay small, ``s' = u``.

    It shows nothing, so that no policy can damp it. Its adjoint ``d`` steps before the end is
    ``sum_{j <= d} (gamma a)^j``, of every action alike.
    """

    max_episode_steps = 10_000

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.observation_space = Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = Box(-np.inf, np.inf, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return self.factor * (state - state.detach()) + action

    def observation(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return next_state[:, 0]

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros(len(state), dtype=torch.bool)


def amplified(factor: float, **more: Any) -> Ahac:
    settings: dict[str, Any] = {
        "num_envs": 6,
        "n_steps": 4,
        "horizon_min": 2,
        "horizon_max": 24,
        "hidden": (4,),
        "gamma": 0.9,
        "amplification_bound": 10.0,
        "estimator": "pathwise",
        "compile": "never",
        "diagnostics_interval": 0,
        "vf_epochs": 1,
    }
    config = AhacConfig(**(settings | more))
    return Ahac(config, DifferentiableVectorEnv(Amplifier(factor), 6), seed=0)


@pytest.mark.parametrize("first", [4, 24])
def test_the_horizon_settles_where_the_known_stiffness_reaches_the_bound(first: int) -> None:
    """From below and from above. With ``gamma a = 1.35`` the adjoint passes 10 after 5 steps."""
    agent = amplified(1.5, n_steps=first)
    sizes = [sum(1.35**j for j in range(d + 1)) for d in range(24)]
    longest = sum(size <= 10 for size in sizes)
    lengths = []
    for _ in range(60):
        window = agent.collect()
        metrics = agent.update(window)
        lengths.append(window.num_steps)
        measured = float(metrics["train/horizon_amplification"])
        assert measured == pytest.approx(sizes[window.num_steps - 1], rel=1e-4)
    assert longest == 5
    assert lengths[0] == first
    assert set(lengths[30:]) <= {longest - 1, longest, longest + 1}
    assert longest <= sum(lengths[30:]) / 30 <= longest + 1


@pytest.mark.parametrize(("factor", "ends"), [(0.5, 24), (40.0, 2)])
def test_the_horizon_stays_within_its_limits(factor: float, ends: int) -> None:
    """It grows where nothing is amplified, the opposite of one published code, and else shrinks."""
    agent = amplified(factor)
    for _ in range(30):
        agent.update(agent.collect())
    assert agent.horizon.steps == ends


def test_a_resumed_run_goes_on_with_its_horizon(tmp_path: Path) -> None:
    """Same lengths of the windows, and the same bits."""
    whole = amplified(1.1)
    for _ in range(5):
        whole.update(whole.collect())
    assert whole.horizon.steps not in (2, 4, 24)
    save_checkpoint(tmp_path / "state.safetensors", whole.state_dict())
    resumed = amplified(1.1)
    resumed.load_state_dict(load_checkpoint(tmp_path / "state.safetensors"))
    for _ in range(4):
        windows = whole.collect(), resumed.collect()
        assert windows[0].num_steps == windows[1].num_steps
        whole.update(windows[0])
        resumed.update(windows[1])
    for ours, theirs in zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_value_functions_are_two() -> None:
    """Those of the published code are made of the same layers, and so are one."""
    module: Any = amplified(1.0).value.module
    first, second = ([p.detach() for p in member.parameters()] for member in module.members)
    addresses = {p.data_ptr() for p in (*first, *second)}
    assert len(addresses) == len(first) + len(second)
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("first", [1, 40])
def test_the_first_window_is_free_of_the_limits(first: int) -> None:
    """So that one ``--n-steps`` suits all agents; the second window keeps the limits."""
    agent = amplified(1.0, n_steps=first)
    lengths = []
    for _ in range(2):
        window = agent.collect()
        agent.update(window)
        lengths.append(window.num_steps)
    assert lengths == [first, 2 if first == 1 else 24]


def test_limits_that_leave_nothing_are_refused() -> None:
    with pytest.raises(SettingError, match="horizon_max must be at least horizon_min, 8"):
        AhacConfig(horizon_max=4)


def test_it_halves_the_cost_of_a_point_mass() -> None:
    """In 20,000 steps, a few seconds, the return rises by half of its distance from 0."""
    env, cpu = DifferentiableVectorEnv(PointMass(), 64), torch.device("cpu")
    config = AhacConfig(num_envs=32)
    agent = Ahac(config, DifferentiableVectorEnv(PointMass(), 32), total_steps=20_000)

    def mean_return() -> float:
        return evaluate(env, agent.policy, episodes=64, seed=7, device=cpu).mean_return

    before = mean_return()
    while agent.collector.num_steps < 20_000:
        agent.update(agent.collect())
    assert mean_return() > 0.5 * before


def test_fewer_environments_than_a_measurement_needs_are_refused() -> None:
    """With two, the adjoint's growth would never be measured, and the horizon only grow."""
    with pytest.raises(RequestError, match="num_envs must be at least 3: the adjoint's growth"):
        AhacConfig(num_envs=2)
