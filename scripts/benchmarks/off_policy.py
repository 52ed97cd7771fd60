"""The ``sac`` and ``td3`` benchmarks: environment steps, each with a gradient step on a minibatch.

Both sides have the same networks, minibatches and replay ratio on Gymnasium's environments. Ours
collects a window of 32 steps and then makes 32 gradient steps; Stable-Baselines3 alternates. With
256 units the products of matrices alone are most of the time of both sides.
"""

import functools
from typing import Any

import gymnasium

from pgtoolkit.agents.sac import Sac, SacConfig
from pgtoolkit.agents.td3 import Td3, Td3Config
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run

SB3 = "Stable-Baselines3"
ENV_IDS = ("Pendulum-v1", "HalfCheetah-v5")
WIDTHS = (256, 64)
STEPS, BATCH, STARTS, TARGET = 32, 256, 128, 2.0


def sac_cases() -> list[Case]:
    """SAC on each environment with each width."""
    return cases("SAC", sac_side)


def td3_cases() -> list[Case]:
    """TD3 on each environment with each width."""
    return cases("TD3", td3_side)


def cases(peer: str, ours: Any) -> list[Case]:
    """A case for each environment and width.

    Args:
        peer: name of the class in Stable-Baselines3.
        ours: makes our side from environment and width.
    """
    return [
        Case(
            f"{env_id}, two layers of {width}, minibatches of {BATCH}",
            STEPS,
            "steps",
            {
                OURS: functools.partial(ours, env_id, width),
                SB3: functools.partial(sb3_side, peer, env_id, width),
            },
            {SB3: TARGET},
        )
        for env_id in ENV_IDS
        for width in WIDTHS
    ]


def settings_of(width: int) -> dict[str, Any]:
    """Our settings of a side."""
    return {
        "hidden": (width, width),
        "batch_size": BATCH,
        "n_steps": STEPS,
        "learning_starts": STARTS,
        "buffer_size": 100_000,
        "compile": "always",
    }


def sac_side(env_id: str, width: int) -> Run:
    """Our SAC as ``pgtoolkit train sac --compile always`` runs it."""
    env = gymnasium.make_vec(env_id, 1, vectorization_mode="sync")
    return agent_run(Sac(SacConfig(**settings_of(width)), env))


def td3_side(env_id: str, width: int) -> Run:
    """Our TD3 as ``pgtoolkit train td3 --compile always`` runs it."""
    env = gymnasium.make_vec(env_id, 1, vectorization_mode="sync")
    return agent_run(Td3(Td3Config(**settings_of(width)), env))


def agent_run(agent: Any) -> Run:
    """Collects one window and updates, after the steps with random actions."""
    while agent.collector.num_steps <= STARTS:
        agent.update(agent.collect())

    def run(index: int) -> None:
        agent.update(agent.collect())

    return run


def sb3_side(name: str, env_id: str, width: int) -> Run:
    """Stable-Baselines3's agent, as many steps at a time."""
    import stable_baselines3

    model = getattr(stable_baselines3, name)(
        "MlpPolicy",
        env_id,
        device="cpu",
        seed=0,
        batch_size=BATCH,
        learning_starts=STARTS,
        buffer_size=100_000,
        policy_kwargs={"net_arch": [width, width]},
    )
    model.learn(STARTS + STEPS)

    def run(index: int) -> None:
        model.learn(STEPS, reset_num_timesteps=False)

    return run
