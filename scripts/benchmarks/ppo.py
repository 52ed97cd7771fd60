"""The ``ppo-gym`` and ``ppo-native`` benchmarks: a window of PPO and its update.

``ppo-gym`` runs PPO on Gymnasium's environments. ``ppo-native`` runs it on this package's batched
Pendulum, against Stable-Baselines3 on as many copies of Gymnasium's Pendulum in one process; both
make the same number of epochs over a window.
"""

import functools
from typing import Any

import gymnasium

from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run

GYMNASIUM_IDS = ("Pendulum-v1", "CartPole-v1")

SB3, COMPILED_SCRIPT = "Stable-Baselines3", "compiled single-file loop"

GYMNASIUM_SETTINGS = {
    "light": {"num_envs": 16, "n_steps": 128, "n_epochs": 4, "batch_size": 512},
    "heavy": {"num_envs": 8, "n_steps": 256, "n_epochs": 10, "batch_size": 64},
}

GYMNASIUM_TARGETS = {
    "light": {SB3: 1.8, COMPILED_SCRIPT: 1.3},
    "heavy": {SB3: 4.0, COMPILED_SCRIPT: 1.3},
}

NATIVE_SETTINGS = {"num_envs": 1024, "n_steps": 32, "n_epochs": 4, "batch_size": 512}

NATIVE_TARGET = 30.0


def gymnasium_cases() -> list[Case]:
    """A case for each of Gymnasium's environments and each setting."""
    return [
        Case(
            f"{env_id}, {describe(settings)}",
            settings["num_envs"] * settings["n_steps"],
            "steps",
            {
                OURS: functools.partial(gymnasium_side, env_id, settings),
                SB3: functools.partial(sb3_side, env_id, settings),
                COMPILED_SCRIPT: functools.partial(compiled_script_side, env_id, settings),
            },
            GYMNASIUM_TARGETS[name],
        )
        for env_id in GYMNASIUM_IDS
        for name, settings in GYMNASIUM_SETTINGS.items()
    ]


def native_cases() -> list[Case]:
    """One case: a window of 1024 batched Pendulums and its update."""
    steps = NATIVE_SETTINGS["num_envs"] * NATIVE_SETTINGS["n_steps"]
    sides = {OURS: native_side, SB3: lambda: sb3_side("Pendulum-v1", NATIVE_SETTINGS)}
    name = f"Pendulum, {describe(NATIVE_SETTINGS)}"
    return [Case(name, steps, "steps", sides, {SB3: NATIVE_TARGET})]


def describe(settings: dict[str, int]) -> str:
    """``16 x 128, 4 epochs of 512``: environments, steps, epochs and minibatch size."""
    return (
        f"{settings['num_envs']} x {settings['n_steps']}, {settings['n_epochs']} epochs of "
        f"{settings['batch_size']}"
    )


def gymnasium_side(env_id: str, settings: dict[str, int]) -> Run:
    """Our PPO on Gymnasium's environments, as ``pgtoolkit train ppo --compile always`` runs it."""
    env = gymnasium.make_vec(env_id, settings["num_envs"], vectorization_mode="sync")
    return _agent_run(env, settings)


def native_side() -> Run:
    """Our PPO on our batched Pendulum, with compiled rollout and compiled update."""
    env = DifferentiableVectorEnv(Pendulum(), NATIVE_SETTINGS["num_envs"])
    return _agent_run(env, NATIVE_SETTINGS)


def _agent_run(env: AnyVectorEnv, settings: dict[str, Any]) -> Run:
    """Collects one window and updates, with the default diagnostics."""
    agent = Ppo(PpoConfig(**settings, compile="always"), env)

    def run(index: int) -> None:
        agent.update(agent.collect())

    return run


def sb3_side(env_id: str, settings: dict[str, int]) -> Run:
    """Stable-Baselines3's PPO, one window and its update at a time."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    given: dict[str, Any] = {n: settings[n] for n in ("n_steps", "n_epochs", "batch_size")}
    env = make_vec_env(env_id, n_envs=settings["num_envs"], seed=0)
    model = PPO("MlpPolicy", env, device="cpu", seed=0, **given)
    steps = settings["num_envs"] * settings["n_steps"]

    def run(index: int) -> None:
        model.learn(steps, reset_num_timesteps=False)

    return run


def compiled_script_side(env_id: str, settings: dict[str, int]) -> Run:
    """A plain PyTorch script with ``torch.compile``."""
    from pgtoolkit.scripts.benchmarks import peer_ppo

    return peer_ppo.ppo_run(env_id, **settings)
