"""Every agent of the table resumes exactly on ordinary environments."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pgtoolkit.config import CriticSettings
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.scripts.cli.registry import AGENTS, load_agent
from pgtoolkit.scripts.reliability.compare_runs import leaves
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

SMALL: dict[str, Any] = {"num_envs": 3, "n_steps": 8, "hidden": (8,), "batch_size": 12}
SMALL |= {"learning_starts": 48, "buffer_size": 300}
ENVS = {
    "Pendulum-v1": "state restored",
    "CartPole-v1": "state restored",
    "Acrobot-v1": "state restored",
    "MountainCarContinuous-v0": "state restored",
    "LunarLanderContinuous-v3": "episodes replayed",
    "InvertedPendulum-v5": "state restored",
    "HalfCheetah-v5": "state restored",
}
"""Ids to the beginning of what is said of the resume."""

DISCRETE = ("CartPole-v1", "Acrobot-v1")
PACKAGES = {"LunarLanderContinuous-v3": "Box2D", "HalfCheetah-v5": "mujoco"}
PACKAGES |= {"InvertedPendulum-v5": "mujoco"}
SCORE_AGENTS = [name for name in AGENTS if not load_agent(name)[0].needs_gradient]


def trained(name: str, env_id: str, **settings: Any) -> Any:
    kind, config = load_agent(name)
    fields = {field.name for field in dataclasses.fields(config)}
    given = {key: value for key, value in (SMALL | settings).items() if key in fields}
    env = make_vector_env(find_env(env_id), SMALL["num_envs"], differentiate="none")
    make: Any = kind
    return make(config(**given), env, seed=3, total_steps=10_000)


def update(agent: Any, times: int) -> None:
    for _ in range(times):
        agent.update(agent.collect())


def require_exact(name: str, env_id: str, path: Path, updates: int = 9, **settings: Any) -> str:
    """Trains, saves, loads into a fresh agent, and compares all bits some updates later."""
    agent, other = (trained(name, env_id, **settings) for _ in range(2))
    update(agent, updates)
    update(other, 1)
    save_checkpoint(path / "state", agent.state_dict())
    other.load_state_dict(load_checkpoint(path / "state"))
    update(agent, updates)
    update(other, updates)
    assert dict(leaves(agent.state_dict())) == dict(leaves(other.state_dict()))
    said: str = other.collector.resumed
    return said


DISCRETE = ("CartPole-v1", "Acrobot-v1")
CASES = [
    (name, env_id)
    for name in SCORE_AGENTS
    for env_id in ENVS
    if env_id not in DISCRETE or not issubclass(load_agent(name)[1], CriticSettings)
]


@pytest.mark.parametrize(("name", "env_id"), CASES)
def test_ordinary_environments(name: str, env_id: str, tmp_path: Path) -> None:
    if env_id in PACKAGES:
        pytest.importorskip(PACKAGES[env_id])
    assert require_exact(name, env_id, tmp_path).startswith(ENVS[env_id])


def test_whole_episodes(tmp_path: Path) -> None:
    """Their environments are reset without a seed, so their generators must go on."""
    said = require_exact("reinforce", "CartPole-v1", tmp_path, 3, rollout="episodes")
    assert said == "state restored"


def test_new_episodes_of_recorded_seeds(tmp_path: Path) -> None:
    """Two resumes of one state end alike where the environments cannot be saved."""
    first = trained("ppo", "CartPole-v1")
    update(first, 2)
    state = first.state_dict()
    seeds = state["collector"]["env"]["seeds"]
    state["collector"]["env"]["environments"] = [
        {"kind": "new episodes", "reason": "a try", "seed": seed, "vector": own["vector"]}
        for seed, own in zip(seeds, state["collector"]["env"]["environments"], strict=True)
    ]
    ends = []
    for _ in range(2):
        agent = trained("ppo", "CartPole-v1")
        agent.load_state_dict(state)
        shown = ", ".join(map(str, seeds))
        assert agent.collector.resumed == f"new episodes with seeds {shown} (a try)"
        assert bool(agent.collector.rollout_state.episode_start.all())
        update(agent, 2)
        ends.append(dict(leaves(agent.state_dict())))
    assert ends[0] == ends[1]
