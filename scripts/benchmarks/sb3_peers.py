"""Agents of this package and of Stable-Baselines3 with the same settings."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, final

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.errors import RequestError
from pgtoolkit.extras import install_command
from pgtoolkit.scripts.benchmarks.learning import Act, mode_action
from pgtoolkit.scripts.cli.registry import load_agent

Settings = Mapping[str, Any]

Train = Callable[[int], None]
"""Trains until there were so many environment steps in all."""


@final
class Learner(NamedTuple):
    """An agent that learns in its own environments."""

    train: Train
    act: Act
    """Its deterministic policy."""


@final
class Peer(NamedTuple):
    """An algorithm that both packages have."""

    module: str
    """Where the other implementation is."""
    name: str
    """Its class."""
    settings: Settings
    """Settings of both, by our names; a comparison may change them."""
    ours: Mapping[str, Any] = {}
    """Settings of ours that the other implementation does not have."""
    renamed: Mapping[str, str] = {}
    """Our name of a setting to the other implementation's, where these differ."""
    theirs: Callable[[Settings], dict[str, Any]] = lambda settings: {}
    """Further arguments of the other implementation, from ``settings``."""


ON_POLICY: Settings = {
    "num_envs": 8,
    "n_steps": 256,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "hidden": (64, 64),
}
FIRST_ORDER: Settings = {
    **ON_POLICY,
    "learning_rate": 3e-4,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "ent_coef": 0.0,
}
OFF_POLICY: Settings = {
    "learning_rate": 3e-4,
    "learning_starts": 1_000,
    "batch_size": 256,
    "gamma": 0.99,
    "tau": 0.005,
    "hidden": (256, 256),
}
UNSCALED: Settings = {"normalize_rewards": False, "normalize_observations": False}

OTHERWISE_GIVEN = ("num_envs", "hidden", "vf_minibatches", "action_noise")
"""Settings that are no numbers among the other implementations' arguments."""


def value_batches(settings: Settings) -> dict[str, Any]:
    """Contrib's TRPO takes the size of a minibatch, not their number; advantages as they are."""
    steps = settings["num_envs"] * settings["n_steps"]
    return {"batch_size": steps // settings["vf_minibatches"], "normalize_advantage": False}


def exploration(settings: Settings) -> dict[str, Any]:
    """TD3's noise is an object in Stable-Baselines3, of the shape of an action."""
    noise = importlib.import_module("stable_baselines3.common.noise")
    shape = settings["action_shape"]
    std = np.full(shape, settings["action_noise"])
    return {"action_noise": noise.NormalActionNoise(np.zeros(shape), std)}


PEERS: Mapping[str, Peer] = {
    "a2c": Peer(
        "stable_baselines3",
        "A2C",
        {**FIRST_ORDER, "n_steps": 8, "learning_rate": 1e-3},
        ours=UNSCALED,
        theirs=lambda settings: {"use_rms_prop": False},
    ),
    "ppo": Peer(
        "stable_baselines3",
        "PPO",
        {**FIRST_ORDER, "batch_size": 64, "n_epochs": 10, "clip_range": 0.2},
        ours={**UNSCALED, "adam_epsilon": 1e-8},
    ),
    "trpo": Peer(
        "sb3_contrib",
        "TRPO",
        {
            **ON_POLICY,
            "target_kl": 0.01,
            "cg_iterations": 15,
            "cg_damping": 0.1,
            "line_search_shrink": 0.8,
            "line_search_trials": 10,
            "vf_learning_rate": 1e-3,
            "vf_epochs": 10,
            "vf_minibatches": 16,
        },
        ours=UNSCALED,
        renamed={
            "cg_iterations": "cg_max_steps",
            "line_search_shrink": "line_search_shrinking_factor",
            "line_search_trials": "line_search_max_iter",
            "vf_learning_rate": "learning_rate",
            "vf_epochs": "n_critic_updates",
        },
        theirs=value_batches,
    ),
    "sac": Peer("stable_baselines3", "SAC", OFF_POLICY),
    "td3": Peer(
        "stable_baselines3", "TD3", {**OFF_POLICY, "action_noise": 0.1}, theirs=exploration
    ),
}


def settings_of(agent: str, given: Settings) -> dict[str, Any]:
    """The settings of both implementations.

    Raises:
        RequestError: a setting that is given is none of those that both have.
    """
    known = PEERS[agent].settings
    unknown = [name for name in given if name not in known]
    if unknown:
        raise RequestError(
            f"{', '.join(unknown)}: no setting that both implementations of {agent} have; those "
            f"are {', '.join(known)}"
        )
    return {**known, **given}


def window_size(settings: Settings) -> int:
    """Environment steps between two updates."""
    return int(settings.get("num_envs", 1) * settings.get("n_steps", 1))


def ours(agent: str, env_id: str, settings: Settings, *, seed: int, total_steps: int) -> Learner:
    """Our agent with these settings of both."""
    agent_class, config_class = load_agent(agent)
    both = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    config = config_class(**{**both, **PEERS[agent].ours, "diagnostics_interval": 0})
    env = gymnasium.make_vec(env_id, config.num_envs, vectorization_mode="sync")
    made: Any = agent_class(config, env, seed=seed, total_steps=total_steps)

    def train(steps: int) -> None:
        while made.collector.num_steps + window_size(settings) <= steps:
            made.update(made.collect())

    return Learner(train, lambda obs: mode_action(made, obs))


def theirs(agent: str, env_id: str, settings: Settings, *, seed: int) -> Learner:
    """The other implementation's agent with these settings of both.

    Its actions are scaled to [-1, 1], in whose unit our Gaussian is; off-policy agents do that
    themselves.

    Raises:
        RequestError: the package is not installed.
    """
    peer, num_envs = PEERS[agent], settings.get("num_envs")
    try:
        model_class = getattr(importlib.import_module(peer.module), peer.name)
        vectorized = importlib.import_module("stable_baselines3.common.env_util")
    except ImportError as error:
        raise RequestError(f"{peer.module} is not installed: {install_command('bench')}") from error
    space = gymnasium.make(env_id).action_space
    box = space if isinstance(space, Box) and num_envs is not None else None

    def scaled(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        low, high = np.float32(-1), np.float32(1)
        return env if box is None else gymnasium.wrappers.RescaleAction(env, low, high)

    env = vectorized.make_vec_env(env_id, num_envs or 1, seed=seed, wrapper_class=scaled)
    arguments = {
        peer.renamed.get(name, name): value
        for name, value in settings.items()
        if name not in OTHERWISE_GIVEN
    }
    arguments |= peer.theirs({**settings, "action_shape": space.shape or (1,)})
    network: dict[str, Any] = {"net_arch": list(settings["hidden"])}
    if num_envs is not None:
        network["optimizer_kwargs"] = {"eps": 1e-8}  # ours, and torch's default
    model = model_class(
        "MlpPolicy", env, device="cpu", seed=seed, policy_kwargs=network, **arguments
    )

    def train(steps: int) -> None:
        model.learn(steps - model.num_timesteps, reset_num_timesteps=model.num_timesteps == 0)

    def act(obs: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = model.predict(obs, deterministic=True)[0]
        return found if box is None else box.low + (found + 1) / 2 * (box.high - box.low)

    return Learner(train, act)
