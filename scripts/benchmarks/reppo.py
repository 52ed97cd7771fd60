"""The ``reppo`` benchmark: a window of REPPO and its update, against this package's own PPO.

Both collect the same windows of Gymnasium's Pendulum-v1, have hidden layers of the same width, make
the same epochs of the same minibatches, and are compiled. REPPO steps a critic and a policy on each
minibatch, each with a network of its own and a LayerNorm in each hidden layer.
"""

import functools
from typing import Any

import gymnasium

from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.scripts.benchmarks.ppo import describe
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run
from pgtoolkit.scripts.cli.registry import load_agent

ENV_ID = "Pendulum-v1"

PPO = "this package's ppo"

WIDTHS = (64, 256)
"""Sizes of the two hidden layers."""

SETTINGS = {"num_envs": 16, "n_steps": 128, "n_epochs": 8, "batch_size": 512}

TARGET = 1.5
"""Most CPU seconds of REPPO for an environment step, in units of PPO's."""


def cases() -> list[Case]:
    """A case for each width."""
    steps = SETTINGS["num_envs"] * SETTINGS["n_steps"]
    return [
        Case(
            f"{ENV_ID}, {describe(SETTINGS)}, {width} x {width}",
            steps,
            "steps",
            {
                OURS: functools.partial(agent_side, "reppo", SETTINGS, width),
                PPO: functools.partial(agent_side, "ppo", SETTINGS, width),
            },
            {PPO: TARGET},
            goal="at most",
        )
        for width in WIDTHS
    ]


def agent_side(name: str, settings: dict[str, int], width: int) -> Run:
    """The agent, as ``pgtoolkit train NAME --compile always`` runs it."""
    env = gymnasium.make_vec(ENV_ID, settings["num_envs"], vectorization_mode="sync")
    return agent_run(name, env, **settings, hidden=(width, width), compile="always")


def agent_run(name: str, env: AnyVectorEnv, **settings: Any) -> Run:
    """Collects one window and updates, with the default diagnostics."""
    kind, config = load_agent(name)
    make: Any = kind
    agent = make(config(**settings), env)

    def run(index: int) -> None:
        agent.update(agent.collect())

    return run
