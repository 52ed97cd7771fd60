"""Every agent of the table trains on the device, resumes bit for bit, and equals the processor."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.rollouts.evaluation import evaluate
from pgtoolkit.scripts.cli.registry import AGENTS, load_agent
from pgtoolkit.scripts.reliability.compare_runs import leaves
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint
from tests.cuda.same_draws import same_draws

pytestmark = pytest.mark.cuda

UPDATES = 3
SMALL: dict[str, Any] = {
    "num_envs": 6,
    "n_steps": 8,
    "hidden": (8,),
    "batch_size": 12,
    "n_epochs": 2,
    "vf_epochs": 1,
    "cg_iterations": 3,
    "probe_steps": 4,
    "diagnostics_interval": 2,
    "normalize_observations": True,
    "normalize_rewards": True,
    "learning_starts": 12,
    "buffer_size": 500,
}
"""Settings of those agents that have them."""

MIXED = {"apg mixed": "apg", "shac mixed": "shac"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in AGENTS} | {
    name: (agent, {"estimator": "mixed"}) for name, agent in MIXED.items()
}


def make(variant: str, device: torch.device, seed: int = 3, **settings: Any) -> Any:
    name, own = VARIANTS[variant]
    kind, config = load_agent(name)
    fields = {field.name for field in dataclasses.fields(config)}
    given = {key: value for key, value in (SMALL | own | settings).items() if key in fields}
    env = DifferentiableVectorEnv(Pendulum(), given["num_envs"], device=device)
    agent: Any = kind
    return agent(config(**given), env, seed=seed, total_steps=10_000)


def train(agent: Any, updates: int = UPDATES) -> dict[str, Tensor]:
    metrics: dict[str, Tensor] = {}
    for _ in range(updates):
        metrics = agent.update(agent.collect())
    return metrics


def parameters(agent: Any) -> dict[str, Tensor]:
    """Every parameter of the policy and, where there is one, of the critic or value function."""
    modules = {"policy": agent.policy}
    modules |= {"critic": agent.critic.module} if hasattr(agent, "critic") else {}
    found = {
        f"{name}.{key}": value.detach().cpu().clone()
        for name, module in modules.items()
        for key, value in module.named_parameters()
    }
    return found


def moves(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Tensor:
    """The change of all parameters, as one vector."""
    return torch.cat([(after[name] - before[name]).flatten() for name in before])


@pytest.mark.parametrize("variant", VARIANTS)
def test_three_updates(variant: str, device: torch.device) -> None:
    """The policy changes, every metric is finite, and all that is saved is on the device."""
    agent = make(variant, device)
    before = parameters(agent)
    metrics = train(agent)
    assert float(moves(before, parameters(agent)).norm()) > 0
    infinite = [tag for tag, value in metrics.items() if not bool(value.isfinite().all())]
    assert not infinite
    elsewhere = [n for n, p in agent.policy.named_parameters() if p.device.type != device.type]
    assert not elsewhere
    env = DifferentiableVectorEnv(Pendulum(), 2, device=device)
    evaluation = evaluate(env, agent.policy, episodes=2, seed=0, device=device)
    assert len(evaluation.returns) == 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resume_continues_bit_for_bit(variant: str, device: torch.device, tmp_path: Path) -> None:
    """From a file, into an agent of another seed."""
    whole, resumed = make(variant, device), make(variant, device, seed=99)
    train(whole, 2)
    train(resumed, 1)
    save_checkpoint(tmp_path / "state.safetensors", whole.state_dict())
    resumed.load_state_dict(load_checkpoint(tmp_path / "state.safetensors"))
    train(whole)
    train(resumed)
    assert dict(leaves(whole.state_dict())) == dict(leaves(resumed.state_dict()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_processor_learns_the_same(variant: str, device: torch.device) -> None:
    """With equal draws the parameters' changes differ by rounding: 1 % of their norm at most.

    Adam divides by the gradient's size, so where a gradient is nearly 0, rounding decides its sign.
    """
    with same_draws():
        changes = []
        for place in (torch.device("cpu"), device):
            agent = make(variant, place)
            before = parameters(agent)
            train(agent)
            changes.append(moves(before, parameters(agent)))
    assert float(changes[0].norm()) > 0
    assert float((changes[1] - changes[0]).norm()) <= 0.01 * float(changes[0].norm())


@pytest.mark.parametrize("name", ["reinforce", "ppo", "a2c"])
def test_one_update_of_one_window_equals_the_processor(name: str, device: torch.device) -> None:
    """The window is collected on the processor and copied: the update alone differs."""
    from pgtoolkit.rollouts.window import map_window

    with same_draws():
        here, there = make(name, torch.device("cpu")), make(name, device)
        window = here.collect().detach()
        there.collect()
        copied = map_window(lambda tensor: tensor.to(device), window)
        before = parameters(here)
        found, expected = there.update(copied), here.update(window)
    change = moves(before, parameters(here))
    assert float((moves(before, parameters(there)) - change).norm()) <= 1e-3 * float(change.norm())
    for tag in ("gradient/score_function/variance", "train/entropy_loss"):
        if tag in expected:
            torch.testing.assert_close(found[tag].cpu(), expected[tag], rtol=1e-3, atol=1e-6)
