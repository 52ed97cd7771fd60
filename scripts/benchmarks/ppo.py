"""The ``ppo-gym`` benchmark: windows and updates of PPO on Gymnasium's environments."""

import functools
from typing import Any

import gymnasium

from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run

ENVIRONMENTS = ("Pendulum-v1", "CartPole-v1")

SB3, LEAN = "Stable-Baselines3", "compiled single-file loop"

SHAPES = {
    "light": {"num_envs": 16, "n_steps": 128, "n_epochs": 4, "batch_size": 512},
    "heavy": {"num_envs": 8, "n_steps": 256, "n_epochs": 10, "batch_size": 64},
}

TARGETS = {"light": {SB3: 1.8, LEAN: 1.3}, "heavy": {SB3: 4.0, LEAN: 1.3}}


def cases() -> list[Case]:
    """One for each environment and shape: a window and its update."""
    return [
        Case(
            f"{env_id}, {describe(shape)}",
            shape["num_envs"] * shape["n_steps"],
            "steps",
            {
                OURS: functools.partial(our_side, env_id, shape),
                SB3: functools.partial(sb3_side, env_id, shape),
                LEAN: functools.partial(lean_side, env_id, shape),
            },
            TARGETS[name],
        )
        for env_id in ENVIRONMENTS
        for name, shape in SHAPES.items()
    ]


def describe(shape: dict[str, int]) -> str:
    """In words."""
    return (
        f"{shape['num_envs']} x {shape['n_steps']}, {shape['n_epochs']} epochs of "
        f"{shape['batch_size']}"
    )


def our_side(env_id: str, shape: dict[str, int]) -> Run:
    """As ``pgtoolkit train ppo`` does it, diagnostics included, with the compiled update."""
    env = gymnasium.make_vec(env_id, shape["num_envs"], vectorization_mode="sync")
    return agent_run(env, shape)


def agent_run(env: AnyVectorEnv, shape: dict[str, Any]) -> Run:
    """A window and its update."""
    agent = Ppo(PpoConfig(**shape, compile="always"), env)

    def run(index: int) -> None:
        agent.update(agent.collect())

    return run


def sb3_side(env_id: str, shape: dict[str, int]) -> Run:
    """Stable-Baselines3's own loop, for one window at a time."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    settings: dict[str, Any] = {n: shape[n] for n in ("n_steps", "n_epochs", "batch_size")}
    env = make_vec_env(env_id, n_envs=shape["num_envs"], seed=0)
    model = PPO("MlpPolicy", env, device="cpu", seed=0, **settings)
    steps = shape["num_envs"] * shape["n_steps"]

    def run(index: int) -> None:
        model.learn(steps, reset_num_timesteps=False)

    return run


def lean_side(env_id: str, shape: dict[str, int]) -> Run:
    """The plain script with ``torch.compile``."""
    from pgtoolkit.scripts.benchmarks import peer_ppo

    return peer_ppo.ppo_run(
        env_id, shape["num_envs"], shape["n_steps"], shape["n_epochs"], shape["batch_size"]
    )
