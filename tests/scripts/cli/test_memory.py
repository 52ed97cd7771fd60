"""What a run needs of memory, and when the probe of the critic's gradient is a part of it."""

import contextlib
from typing import Any

import pytest
import torch

from pgtoolkit.agents.sac import Sac, SacConfig
from pgtoolkit.agents.shac import ShacConfig
from pgtoolkit.envs.measurement.gradient_probe import GradientProbe, has_probe
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli import memory
from pgtoolkit.scripts.cli.environments import EnvFactory, make_env_factory

LARGE: dict[str, Any] = {"probe_envs": 10**6, "probe_steps": 10**4}


def environments(name: str, **settings: Any) -> EnvFactory:
    given: dict[str, Any] = {
        "differentiate": "auto",
        "adapter_kwargs": {},
        "wrappers": {},
        "needed": False,
        "device": torch.device("cpu"),
    }
    return make_env_factory(name, {}, **(given | settings))


def test_the_probe_counts_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 40 Pendulums, a window of 7 steps, and three gradients of 32 + 9 numbers each."""
    config = SacConfig(num_envs=1, n_steps=1, hidden=(8,), probe_envs=40, probe_steps=7)
    # 3 -> 8 -> 1: 32 + 9 parameters.
    probe = 3 * 4 * 40 * 4 + 4 * 7 * 40 * (6 + 3 + 6) + 3 * 4 * 40 * 41
    assert memory.probe_bytes(config, 3, 1) == probe
    needs: list[float] = []
    monkeypatch.setattr(
        memory, "require_memory", lambda given, *_: needs.append(sum(given.values()))
    )
    for steps in (0, 7):
        given = SacConfig(num_envs=1, n_steps=1, hidden=(8,), probe_envs=40, probe_steps=steps)
        memory.require_training_memory(environments("pgtoolkit/Pendulum-v0"), given, 1)
    assert needs[1] - needs[0] == probe


def test_a_probe_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        RequestError,
        match=r"the gradient probe \(probe_envs=1000000.*make probe_envs or probe_steps",
    ):
        memory.require_training_memory(environments("pgtoolkit/Pendulum-v0"), SacConfig(**LARGE), 1)


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "differentiable": ("pgtoolkit/Pendulum-v0", {}, {}),
    "ordinary": ("Pendulum-v1", {}, {}),
    "never measured": ("pgtoolkit/Pendulum-v0", {"diagnostics_interval": 0}, {}),
    "no steps": ("pgtoolkit/Pendulum-v0", {"probe_steps": 0}, {}),
    "no gradient": ("pgtoolkit/Pendulum-v0", {}, {"differentiate": "none"}),
    "a simulator": ("Pendulum-v1", {}, {"differentiate": "finite-difference"}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_counts_where_there_is_one(name: str) -> None:
    env, given, settings = CASES[name]
    factory = environments(env, **settings)
    config = SacConfig(**({"num_envs": 1, "probe_steps": 4, "probe_envs": 6} | given))
    agent = Sac(config, factory.make(1))
    has_one = isinstance(agent.critic_monitor.probe, GradientProbe)
    assert has_one == (name == "differentiable") == has_probe(config, factory.gradient.env)
    large = SacConfig(**(LARGE | given))
    with pytest.raises(RequestError) if has_one else contextlib.nullcontext():
        memory.require_training_memory(environments(env, **settings), large, 1)


def test_an_agent_without_a_critic_has_none() -> None:
    memory.require_training_memory(environments("pgtoolkit/Pendulum-v0"), ShacConfig(), 1)
    assert not has_probe(ShacConfig(), environments("pgtoolkit/Pendulum-v0").gradient.env)


def test_a_study_counts_the_gradients_that_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where estimators are mixed both are held in float64: more than twice as many."""
    monkeypatch.setattr(memory, "available_memory", lambda: 4.0 * 100 * 50 * 10)
    memory.require_statistics_memory(100, 50, mixes=False)
    with pytest.raises(
        RequestError, match=r"trajectories=50, 100 parameters\), .* trajectories or hidden"
    ):
        memory.require_statistics_memory(100, 50, mixes=True)
