"""RPO: its update by hand, what it shares with shac, and that it learns."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.agents.rpo import Rpo, RpoConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import SettingError
from pgtoolkit.rollouts.evaluation import evaluate
from pgtoolkit.rollouts.window import Window
from tests.agents.linear_path import (
    LinearPolicy,
    assert_stepped,
    lambda_returns,
    replay,
    start_of,
    values,
)

STEPS, ENVS, GAMMA, LAMBDA, KL, ENTROPY = 3, 2, 0.9, 0.7, 0.3, 0.1
LINEAR: dict[str, Any] = {
    "num_envs": ENVS,
    "n_steps": STEPS,
    "n_epochs": 3,
    "clip_low": 0.3,
    "clip_high": 0.2,
    "kl_coef_relative": KL,
    "ent_coef_relative": ENTROPY,
    "hidden": (),
    "std": "state_dependent",
    "first_bias": 0.0,
    "compile": "never",
    "normalize_observations": False,
    "gamma": GAMMA,
    "gae_lambda": LAMBDA,
    "learning_rate": 0.05,
    "vf_learning_rate": 0.02,
    "vf_epochs": 1,
    "vf_minibatches": 1,
    "max_grad_norm": 1e6,
    "learning_rate_schedule": "constant",
    "diagnostics_interval": 0,
}


def linear_agent() -> Rpo:
    return Rpo(RpoConfig(**LINEAR), DifferentiableVectorEnv(Pendulum(), ENVS), seed=3)


def log_prob(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Of the Gaussian before squashing: the squashing cancels in ratios."""
    return -0.5 * ((u - mean) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


def entropy(mean: Tensor, log_std: Tensor, eps: Tensor) -> Tensor:
    """Of the torque ``2 tanh u`` at one sample ``u``."""
    u = mean + log_std.exp() * eps
    slope = torch.log(2 * (1 - torch.tanh(u) ** 2))
    return log_std + 0.5 * math.log(2 * math.pi * math.e) + slope


class ByHand:
    """The three steps of the policy in an update, in float64, with formulas of their own."""

    def __init__(self, agent: Rpo, state: Tensor, value: Any, window: Window) -> None:
        self.policy = LinearPolicy(agent.policy)
        self.noise = window.noise.double().squeeze(-1)
        path = replay(self.policy, state, window.noise)
        self.obs, self.reward = path.obs.detach(), path.reward.detach()
        self.next_obs = path.next_obs.detach()
        self.unit = self.reward.std(unbiased=False)
        with torch.no_grad():
            self.mean, self.log_std = self.policy.gaussian(self.obs)
        self.u = self.mean + self.log_std.exp() * self.noise
        self.adjoint = self.action_gradient(state, value)
        self.adam = torch.optim.Adam(self.policy.parameters, 0.05, betas=agent.config.adam_betas)

    def action_gradient(self, state: Tensor, value: Any) -> Tensor:
        """``dJ/du`` ``[T, N]``, by the derivative of ``J`` by the noise."""
        noise = self.noise.unsqueeze(-1).clone().requires_grad_()
        path = replay(self.policy, state, noise)
        discount = GAMMA ** torch.arange(STEPS, dtype=torch.float64).unsqueeze(1)
        end = values(value, path.next_obs[-1]).amin(0)
        objective = (discount * path.reward).sum(0) + GAMMA**STEPS * end
        (gradient,) = torch.autograd.grad(objective.sum(), noise)
        return gradient.squeeze(-1) / self.log_std.exp()

    def step(self, weight: Tensor, eps: Tensor, *, divergence: bool) -> None:
        mean, log_std = self.policy.gaussian(self.obs)
        path = (weight * self.adjoint * (mean + log_std.exp() * eps)).sum(0)
        bonus = ENTROPY * self.unit * entropy(mean, log_std, self.noise).sum(0)
        variances = (2 * self.log_std).exp(), (2 * log_std).exp()
        kl = log_std - self.log_std - 0.5
        kl = kl + (variances[0] + (self.mean - mean) ** 2) / (2 * variances[1])
        penalty = KL * self.unit * kl.sum(0) if divergence else 0.0
        loss = -((path + bonus - penalty) / STEPS).mean()
        self.adam.zero_grad()
        for p, gradient in zip(
            self.policy.parameters, torch.autograd.grad(loss, self.policy.parameters), strict=True
        ):
            p.grad = gradient
        self.adam.step()

    def weights(self) -> tuple[Tensor, Tensor]:
        """Importance weights and noise of the policy as it is now."""
        with torch.no_grad():
            mean, log_std = self.policy.gaussian(self.obs)
            old = log_prob(self.u, self.mean, self.log_std)
            ratio = (log_prob(self.u, mean, log_std) - old).exp()
            inside = (ratio >= 0.7) & (ratio <= 1.2)
            return torch.where(inside, ratio, 0.0), (self.u - mean) / log_std.exp()


def test_an_update_is_the_one_computed_by_hand() -> None:
    """Three steps of the policy, and both value functions, on two trajectories of three steps."""
    agent = linear_agent()
    state, value = start_of(agent), copy.deepcopy(agent.value.lagged.copy)
    window = agent.collect()
    hand = ByHand(agent, state, value, window)
    critic = copy.deepcopy(value).double().requires_grad_()
    least = values(value, hand.next_obs).amin(0)
    target = lambda_returns(hand.reward, least, GAMMA, LAMBDA)
    error = (critic(hand.obs) - target).square().mean((1, 2)).sum()
    fitted = list(torch.autograd.grad(error, list(critic.parameters())))

    hand.step(torch.ones_like(hand.u), hand.noise, divergence=False)
    cut = []
    for _ in range(2):
        weight, eps = hand.weights()
        cut.append(float((weight == 0).double().mean()))
        hand.step(weight, eps, divergence=True)

    metrics = agent.update(window)
    for ours, theirs in zip(agent.policy.parameters(), hand.policy.parameters, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-5)
    betas = agent.config.adam_betas
    assert_stepped(agent.value.module, critic.parameters(), fitted, lr=0.02, betas=betas)
    assert float(metrics["train/clip_fraction"]) == pytest.approx(sum(cut) / 2)
    assert 0 < sum(cut) < 2  # some weights were cut, and some were not
    assert float(metrics["train/kl"]) > 0


def test_with_one_step_a_window_it_is_shac() -> None:
    """One value function and shac's settings: the same bits."""
    sizes: dict[str, Any] = {"num_envs": 6, "n_steps": 8, "hidden": (8,), "compile": "never"}
    shac_config = ShacConfig(**sizes, estimator="pathwise")
    shac = Shac(shac_config, DifferentiableVectorEnv(Pendulum(), 6), seed=1)
    names = {field.name for field in dataclasses.fields(RpoConfig)}
    same = {
        field.name: getattr(shac_config, field.name)
        for field in dataclasses.fields(ShacConfig)
        if field.name in names
    }
    config = RpoConfig(**same, num_critics=1, n_epochs=1)
    rpo = Rpo(config, DifferentiableVectorEnv(Pendulum(), 6), seed=1)
    for _ in range(3):
        shac.update(shac.collect())
        rpo.update(rpo.collect())
    for ours, theirs in zip(rpo.policy.parameters(), shac.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_later_steps_take_no_step_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's state after an update is that after its window."""
    agent = linear_agent()
    window = agent.collect()
    before = start_of(agent)
    monkeypatch.setattr(Pendulum, "transition", None)
    agent.update(window)
    assert torch.equal(start_of(agent), before)


def test_the_divergence_falls_with_its_weight() -> None:
    """On the same window: 0, and so much that it rules the later steps."""
    divergences = []
    for weight in (0.0, 100.0):
        config = RpoConfig(**(LINEAR | {"kl_coef_relative": weight, "n_epochs": 8}))
        agent = Rpo(config, DifferentiableVectorEnv(Pendulum(), ENVS), seed=3)
        divergences.append(float(agent.update(agent.collect())["train/kl"]))
    assert divergences[1] < 0.5 * divergences[0]


def test_a_distribution_whose_noise_cannot_be_inferred_is_refused() -> None:
    with pytest.raises(SettingError, match="distribution must be"):
        RpoConfig(distribution="mixture")


def test_it_halves_the_cost_of_a_point_mass() -> None:
    """In 20,000 steps, a few seconds, the return rises by half of its distance from 0."""
    env, cpu = DifferentiableVectorEnv(PointMass(), 64), torch.device("cpu")
    config = RpoConfig(num_envs=32, n_steps=16)
    agent = Rpo(config, DifferentiableVectorEnv(PointMass(), 32), total_steps=20_000)

    def mean_return() -> float:
        return evaluate(env, agent.policy, episodes=64, seed=7, device=cpu).mean_return

    before = mean_return()
    while agent.collector.num_steps < 20_000:
        agent.update(agent.collect())
    assert mean_return() > 0.5 * before
