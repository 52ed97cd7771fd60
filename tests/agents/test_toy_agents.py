"""Two agents made of the toolkit's parts alone: the seams that further agents need.

An off-policy actor-critic with one environment and a replay buffer, and a natural-gradient agent
whose step rule solves with the Fisher matrix. Both learn a problem of two steps, and the gradients
that they follow are measured.
"""

import copy
import dataclasses
import functools
import inspect
from typing import Any, ClassVar, final

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from pgtoolkit.agent import CriticView, Metrics
from pgtoolkit.config import (
    AdamSettings,
    DiagnosticsSettings,
    PolicySettings,
    ProbeSettings,
    RolloutSettings,
)
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.measurement.gradient_probe import make_probe
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.estimators.cross_fitting import leave_one_out_by_fold
from pgtoolkit.estimators.returns import window_returns
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.estimators.surrogates import matched_score_weight
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.learners.critic_measurement import measure_critic
from pgtoolkit.learners.policy_learner import PolicyLearner
from pgtoolkit.learners.step_rules.adam import Adam
from pgtoolkit.learners.step_rules.base import Problem
from pgtoolkit.learners.step_rules.flat_adam import unflatten
from pgtoolkit.learners.value_learner import ValueLearner
from pgtoolkit.networks.value import QEnsemble, QFunction
from pgtoolkit.rollouts.evaluation import evaluate
from pgtoolkit.rollouts.replay import ReplayBuffer
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream
from pgtoolkit.state import load_state_of, state_of


@final
class TwoSteps(DifferentiableEnv[Tensor]):
    """A point that must be moved to 0 in two steps.

    State and observation ``[N, 2]``: position ``x`` and the number of steps. ``x' = x + a`` with
    the action clamped to [-1, 1]; the reward is ``-x'^2``; terminal after two steps. From
    ``|x| < 1`` the best return is 0, and that of no motion is ``-2 x^2``, on average -2/3.
    """

    max_episode_steps = 10

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        position = 2 * torch.rand(num_envs, 1, generator=generator, device=generator.device) - 1
        return torch.cat([position, torch.zeros_like(position)], -1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        position = state[:, :1] + action.clamp(-1.0, 1.0)
        return torch.cat([position, state[:, 1:] + 1], -1)

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -next_state[:, 0].square()

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 1] >= 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(RolloutSettings, AdamSettings, PolicySettings, DiagnosticsSettings, ProbeSettings):
    """Settings of both toy agents."""

    normalize_observations: bool = False
    hidden: tuple[int, ...] = (32,)
    log_std_init: float = -1.0


STATE = ("collector", "learner", "q_learner", "buffer", "generator", "measuring", "probe")


@final
class OffPolicy:
    """DDPG with a stochastic policy: ``max_theta E Q(s, a_theta(s, eps))`` on replayed states."""

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: ToyConfig, env: AnyVectorEnv, *, seed: int = 0, total_steps: int = 10_000
    ) -> None:
        self.config = config
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        self.policy = self.collector.make_policy()
        self.learner = PolicyLearner.of(config, self.policy, self.collector.progress)
        self.generator, self.measuring = stream(seed, "replay"), stream(seed, "measured actions")
        self.q = QEnsemble([self.make_q() for _ in range(2)])
        self.q_learner = ValueLearner(
            self.q, Adam(self.q, 3e-3), tau=0.05, generator=self.generator
        )
        self.buffer = ReplayBuffer(5_000)
        self.probe = make_probe(self.collector, config, self.learner.monitor)

    @property
    def critic(self) -> CriticView:
        return CriticView(self.q)

    def make_q(self) -> QFunction:
        """One Q function of flat observations and actions, with weights of its own."""
        return QFunction(2, 1, (32,), activation="relu", layer_norm=False, generator=self.generator)

    def collect(self) -> Window:
        return self.collector.collect(self.policy)

    def update(self, window: Window) -> Metrics:
        self.buffer.add(window.transitions())
        metrics: Metrics = {}
        with self.learner.updating(window):
            for _ in range(8):
                batch = self.buffer.draw((128,), self.generator)
                noise = self.policy.draw_noise(128, generator=self.generator)
                with torch.no_grad():
                    next_action = self.policy(batch.next_obs).rsample(noise)
                    following = self.q_learner.lagged(batch.next_obs, next_action).amin(0)
                    alive = (~batch.terminated).float()
                    target = batch.reward + self.config.gamma * alive * following
                metrics |= self.q_learner.fit((batch.obs, batch.action), target)
                value = functools.partial(self.value, batch.obs, noise)
                metrics |= self.learner.step_surrogate("critic", value, batch.obs)
            noise = self.policy.draw_noise(4, 128, generator=self.measuring)
            signals = batch.obs, noise, self.q.policy_value
            metrics |= measure_critic(self.policy, *signals, monitor=self.learner.monitor)
            metrics |= self.probe.measure(self.policy, self.critic)
        return metrics

    def value(self, obs: Tensor, noise: Tensor, distribution: Distribution) -> Tensor:
        """``min_j Q_j(s, a(s, eps))`` ``[M]`` of the policy's actions."""
        q: Tensor = self.q(obs, distribution.rsample(noise))
        return q.amin(0)

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


@final
class NaturalGradient:
    """``theta <- theta + rate F^-1 g`` with the Fisher matrix ``F`` of the batch, damped.

    ``F`` is the Hessian of ``KL(old || theta)`` at ``theta = old``; its products with a vector are
    taken by a second backward pass, and the system is solved by conjugate gradients.
    """

    def __init__(self, rate: float, damping: float = 1e-3) -> None:
        self.rate, self.damping = rate, damping

    def step(self, module: nn.Module, problem: Problem | None = None) -> Metrics:
        assert problem is not None
        parameters = list(module.parameters())
        gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        by_parameter = torch.autograd.grad(problem.kl(), parameters, create_graph=True)
        kl_gradient = torch.cat([x.flatten() for x in by_parameter])

        def fisher(vector: Tensor) -> Tensor:
            found = torch.autograd.grad(kl_gradient @ vector, parameters, retain_graph=True)
            return torch.cat([x.flatten() for x in found]) + self.damping * vector

        solution, residual = torch.zeros_like(gradient), gradient.clone()
        direction = residual.clone()
        for _ in range(10):
            product, norm = fisher(direction), residual @ residual
            length = norm / (direction @ product)
            solution, residual = solution + length * direction, residual - length * product
            direction = residual + (residual @ residual) / norm * direction
        with torch.no_grad():
            # `grad` is that of the loss, minus the surrogate.
            for p, change in zip(parameters, unflatten(solution, parameters), strict=True):
                p.add_(change, alpha=-self.rate)
        return {"train/kl": problem.kl().detach()}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@final
class NaturalPolicyGradient:
    """REINFORCE with leave-one-out baselines, by natural-gradient steps (Kakade 2001)."""

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: ToyConfig, env: AnyVectorEnv, *, seed: int = 0, total_steps: int = 10_000
    ) -> None:
        self.config = config
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        self.policy = self.collector.make_policy()
        monitor = GradientMonitor(config.diagnostics_interval)
        self.learner = PolicyLearner(self.policy, NaturalGradient(0.05), monitor)

    def collect(self) -> Window:
        return self.collector.collect(self.policy)

    def update(self, window: Window) -> Metrics:
        gamma, no_value = self.config.gamma, torch.zeros_like(window.reward)

        def weight(signals: Signals) -> Tensor:
            returns = window_returns(signals.window, no_value, gamma=gamma, lambda_=1.0)
            baseline = leave_one_out_by_fold(returns, signals.window.valid)
            return matched_score_weight(signals.window, no_value, baseline, gamma)

        with self.learner.updating(window):
            return self.learner.step(
                "score_function", Signals(self.policy, window, matched_weight=weight)
            )

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, ("collector", "learner"))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, ("collector", "learner"), state)


def mean_return(agent: Any) -> float:
    env = DifferentiableVectorEnv(TwoSteps(), 200)
    cpu = torch.device("cpu")
    return evaluate(env, agent.policy, episodes=200, seed=7, device=cpu).mean_return


TOYS: dict[str, tuple[Any, ToyConfig, str, int]] = {
    "off-policy": (
        OffPolicy,
        ToyConfig(
            num_envs=1,
            n_steps=16,
            learning_rate=3e-3,
            diagnostics_interval=1,
            probe_steps=4,
            probe_envs=16,
        ),
        "critic",
        150,
    ),
    "natural gradient": (
        NaturalPolicyGradient,
        ToyConfig(num_envs=256, n_steps=2, diagnostics_interval=1),
        "score_function",
        60,
    ),
}


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_agent_learns_and_its_gradient_is_measured(name: str) -> None:
    """The mean return rises from about -2/3 to above -1/10; its gradient's variance is reported."""
    make, config, estimator, updates = TOYS[name]
    agent = make(config, DifferentiableVectorEnv(TwoSteps(), config.num_envs), seed=1)
    before = mean_return(agent)
    for _ in range(updates):
        metrics = agent.update(agent.collect())
    assert before < -0.5
    assert mean_return(agent) > -0.1
    for statistic in ("variance", "signal", "norm"):
        assert bool(metrics[f"gradient/{estimator}/{statistic}"].isfinite())
    assert float(metrics[f"gradient/{estimator}/variance"]) > 0


def test_the_bias_of_a_toy_critic_is_measured_in_environments_beside_its_own() -> None:
    """Their steps are not the agent's: it ends with the same weights without the probe."""
    make, config, _, _ = TOYS["off-policy"]
    with_probe, without = (
        make(settings, DifferentiableVectorEnv(TwoSteps(), config.num_envs), seed=1)
        for settings in (config, dataclasses.replace(config, probe_steps=0))
    )
    for agent in (with_probe, without):
        for _ in range(3):
            metrics = agent.update(agent.collect())
        assert ("gradient/critic/bias_z" in metrics) == (agent is with_probe)
        assert {"gradient/critic/followed", "gradient/score_function/variance"} <= metrics.keys()
        assert "gradient/critic_on_states/variance_ratio" in metrics
    assert with_probe.collector.num_steps == without.collector.num_steps == 48
    for a, b in zip(with_probe.policy.parameters(), without.policy.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_agent_goes_on_from_its_state(name: str) -> None:
    """An agent that loads the state of another one makes the same update afterwards."""
    make, config, _, _ = TOYS[name]
    one, other = (
        make(config, DifferentiableVectorEnv(TwoSteps(), config.num_envs), seed=seed)
        for seed in (1, 2)
    )
    for _ in range(3):
        one.update(one.collect())
    other.load_state_dict(copy.deepcopy(one.state_dict()))  # as through a checkpoint
    first, second = (agent.update(agent.collect()) for agent in (one, other))
    for tag in first.keys() - {"gradient/overhead"}:
        assert torch.equal(first[tag], second[tag]), tag
    for a, b in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", [OffPolicy, NaturalPolicyGradient, NaturalGradient])
def test_a_toy_is_short(kind: type) -> None:
    """With docstring and measurements: what more it takes is in the parts."""
    assert len(inspect.getsource(kind).splitlines()) < 65


def test_the_step_is_as_long_as_the_rate_says_in_kl() -> None:
    """A natural step of rate ``r`` moves by about ``KL = r^2 g F^-1 g / 2``, a small number."""
    make, config, _, _ = TOYS["natural gradient"]
    agent = make(config, DifferentiableVectorEnv(TwoSteps(), config.num_envs), seed=1)
    found = [float(agent.update(agent.collect())["train/kl"]) for _ in range(5)]
    assert all(0 < kl < 0.5 for kl in found)
