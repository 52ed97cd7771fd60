"""The gradient probe: environments of its own, exact resume, and where there is none."""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.agent import CriticView
from pgtoolkit.agents.reinforce import ReinforceConfig
from pgtoolkit.config import CriticSettings, PolicySettings, ProbeSettings
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.measurement.gradient_probe import GradientProbe, NoProbe, make_probe, separate
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.learners.q_function import make_q_ensemble
from pgtoolkit.networks.value import QEnsemble
from pgtoolkit.policies.policy import Policy
from pgtoolkit.state import StateError

SETTINGS = ProbeSettings(probe_steps=6, probe_envs=8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QConfig(PolicySettings, CriticSettings):
    """Settings of a Q function."""

    hidden: tuple[int, ...] = (8,)


def collector(env: Any = None, num_envs: int = 2) -> Collector:
    config = ReinforceConfig(num_envs=num_envs, n_steps=4, hidden=(8,))
    vector = DifferentiableVectorEnv(env or Pendulum(), num_envs)
    return Collector(vector, config, seed=3, total_steps=1000)


def probe_of(collector: Collector, monitor: GradientMonitor | None = None) -> GradientProbe:
    found = make_probe(collector, SETTINGS, monitor or GradientMonitor(1))
    assert isinstance(found, GradientProbe)
    return found


def critic_of(collector: Collector) -> CriticView:
    return CriticView(make_q_ensemble(QConfig(), collector.spaces, seed=5), 0.1, 2.0)


def test_all_gradients_are_measured_with_the_bias_of_the_critics() -> None:
    own = collector()
    policy = own.make_policy()
    metrics = probe_of(own).measure(policy, critic_of(own))
    for name in ("score_function", "pathwise", "mixed", "critic"):
        assert bool(metrics[f"gradient/probe/{name}/variance"].isfinite())
        assert metrics[f"gradient/by_step/{name}"].shape == (6,)
    assert {"gradient/critic/bias_z", "gradient/critic/cosine", "gradient/bias_z"} <= metrics.keys()
    assert metrics["gradient/critic/cosine_by_step"].shape == (6,)
    assert float(metrics["gradient/probe/trajectories"]) == 8
    assert all(parameter.grad is None for parameter in policy.parameters())
    # The agent's own statistics have other tags.
    assert not any(f"gradient/{name}/variance" in metrics for name in ("critic", "pathwise"))


def test_the_agents_environments_and_generators_are_left_alone() -> None:
    """Its window is the same to the bit, and no step is counted."""
    windows = []
    for measured in (True, False):
        own = collector()
        policy, probe = own.make_policy(), probe_of(own)
        if measured:
            probe.measure(policy, critic_of(own))
        windows.append(own.collect(policy))
        assert own.num_steps == 8
    assert torch.equal(windows[0].obs, windows[1].obs)
    assert torch.equal(windows[0].action, windows[1].action)


def test_it_goes_on_with_the_policy_and_repeats_itself_by_its_seed() -> None:
    own = collector()
    policy = own.make_policy()
    probe, again = probe_of(own), probe_of(own)
    first = probe.rollout_state.obs.clone()
    assert torch.equal(first, again.rollout_state.obs)
    assert len(set(probe.env.get_state().elapsed.tolist())) > 1  # staggered ages
    one, other = (x.measure(policy, critic_of(own)) for x in (probe, again))
    assert all(torch.equal(one[tag], other[tag]) for tag in one)
    assert not torch.equal(first, probe.rollout_state.obs)
    later = probe.measure(policy, critic_of(own))
    tag = "gradient/probe/pathwise/variance"
    assert not torch.equal(one[tag], later[tag])


def test_a_measurement_is_made_when_the_agent_is_due_and_counts_as_overhead() -> None:
    own, monitor = collector(), GradientMonitor(2)
    policy, probe = own.make_policy(), probe_of(own, monitor)
    found = []
    for _ in range(4):
        with monitor.updating():
            found.append(probe.measure(policy, critic_of(own)))
    assert [bool(metrics) for metrics in found] == [True, False, True, False]
    assert 0 < float(monitor.overhead) <= 1


def test_a_resumed_probe_goes_on_to_the_bit() -> None:
    own = collector()
    policy, critic = own.make_policy(), critic_of(own)
    one, other = probe_of(own), probe_of(own)
    one.measure(policy, critic)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    first, second = one.measure(policy, critic), other.measure(policy, critic)
    assert all(torch.equal(first[tag], second[tag]) for tag in first)
    with pytest.raises(StateError):
        other.load_state_dict({"env": {}})


def test_values_are_in_the_unit_of_the_environments_rewards() -> None:
    """A critic of rewards divided by 2 is the critic of twice its values and temperature."""
    own = collector()
    policy = own.make_policy()
    scaled = critic_of(own)

    class Twice(torch.nn.Module):
        def policy_value(self, features: Tensor, action: Tensor) -> Tensor:
            return 2 * scaled.module.policy_value(features, action)

    twice: Any = Twice()
    plain = CriticView(twice, temperature=0.2)
    one, other = (probe_of(own).measure(policy, critic) for critic in (scaled, plain))
    for tag in ("gradient/probe/critic/variance", "gradient/critic/bias", "gradient/bias"):
        torch.testing.assert_close(one[tag], other[tag])


class Overflowing(torch.nn.Module):
    """A critic that is not finite."""

    def policy_value(self, features: Tensor, action: Tensor) -> Tensor:
        return action.sum(-1) * math.inf


def test_numbers_that_are_not_finite_do_not_end_a_run(caplog: pytest.LogCaptureFixture) -> None:
    own = collector()
    policy, probe = own.make_policy(), probe_of(own)
    broken: Any = Overflowing()
    metrics = probe.measure(policy, CriticView(broken))
    assert float(metrics["gradient/pathwise/missing"]) == 1
    assert "gradient/critic/bias_z" not in metrics
    assert "gradient/critic/bias_z" in probe.measure(policy, critic_of(own))


class Point(DifferentiableEnv[Tensor]):
    """A point that is pushed."""

    max_episode_steps = 5
    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 1, device=generator.device)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return state + action

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -next_state[:, 0].square()

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0].abs() > 3


class Stateful(Point):
    """An environment that learns at the start of a window."""

    def begin_window(self) -> None:
        raise AssertionError("not for a probe")


class WithoutGradient(Point):
    gradient = GradientInfo(action="none")


def vector_without_gradient() -> AnyVectorEnv:
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    make = lambda: NumpyEnv(Pendulum())  # noqa: E731
    return SyncVectorEnv([make] * 2, autoreset_mode=AutoresetMode.SAME_STEP)


@pytest.mark.parametrize(
    ("env", "reason"),
    [(Stateful(), "a state of its own"), (WithoutGradient(), "no gradient")],
)
def test_there_is_no_probe_where_there_is_nothing_to_measure(
    env: DifferentiableEnv[Any], reason: str
) -> None:
    own = collector(env)
    probe = make_probe(own, SETTINGS, GradientMonitor(1))
    assert isinstance(probe, NoProbe) and reason in probe.reason
    assert probe.measure(own.make_policy(), critic_of(own)) == {}
    probe.load_state_dict({"env": "of a run with a gradient"})
    assert probe.state_dict() == {}


def test_there_is_no_probe_in_ordinary_environments() -> None:
    config = ReinforceConfig(num_envs=2, n_steps=4)
    own = Collector(vector_without_gradient(), config, seed=0, total_steps=100)
    assert isinstance(make_probe(own, SETTINGS, GradientMonitor(1)), NoProbe)


@pytest.mark.parametrize("settings", [{"probe_steps": 0}, {}])
def test_there_is_no_probe_where_nothing_is_measured(settings: dict[str, int]) -> None:
    config = dataclasses.replace(SETTINGS, **settings)
    monitor = GradientMonitor(0 if not settings else 1)
    assert isinstance(make_probe(collector(), config, monitor), NoProbe)


def test_wrappers_keep_counters_of_their_own() -> None:
    """Else the agent's metrics would count the probe's steps."""
    gate = GradientGate(Pendulum(), clip_norm=1.0)
    own = collector(gate)
    policy, probe = own.make_policy(), probe_of(own)
    assert isinstance(probe.env.env, GradientGate) and probe.env.env is not gate
    probe.measure(policy, critic_of(own))
    assert gate.metrics() == {}
    assert "environment/gate_clipped" in probe.env.env.metrics()
    assert separate(GradientGate(Stateful(), clip_norm=1.0)) is None


def test_the_policy_may_normalise_its_observations() -> None:
    own = collector()
    policy: Policy = own.make_policy()
    policy.normalizer.update(own.rollout_state.obs[None], torch.ones(1, 2, dtype=torch.bool))
    module: QEnsemble = critic_of(own).module
    metrics = probe_of(own).measure(policy, CriticView(module))
    assert bool(metrics["gradient/critic/bias"].isfinite())
