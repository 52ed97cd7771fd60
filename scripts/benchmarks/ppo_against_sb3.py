"""Trains PPO and Stable-Baselines3's PPO with the same settings and evaluates both.

The evaluations are deterministic, on fresh episodes of the same environment.
"""

import dataclasses
import statistics
from typing import Any, final

import gymnasium

from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.benchmarks.learning import Act, mean_return, mode_action, train
from pgtoolkit.scripts.benchmarks.timing import NOT_INSTALLED

FIRST_EVALUATION_SEED = 10_000


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonArguments:
    """Trains our PPO and Stable-Baselines3's PPO, and prints the return of every seed."""

    env: str = "Pendulum-v1"
    """The environment's Gymnasium id."""
    total_steps: int = 100_000
    """Environment steps of each run."""
    seeds: int = 5
    """Number of runs of each implementation, with seeds 0, 1, 2, ..."""
    num_envs: int = 8
    """Number of parallel environments (n_envs in Stable-Baselines3)."""
    n_steps: int = 256
    """Steps of each environment in a window."""
    batch_size: int = 64
    """Samples of a minibatch."""
    n_epochs: int = 10
    """Passes over each window."""
    learning_rate: float = 1e-3
    """Adam's learning rate, constant during training."""
    gamma: float = 0.9
    """Discount factor."""
    episodes: int = 50
    """Number of episodes in each evaluation."""


def train_ours(options: ComparisonArguments, seed: int) -> float:
    """Mean evaluation return of our agent after training."""
    env = gymnasium.make_vec(options.env, options.num_envs, vectorization_mode="sync")
    names = ("num_envs", "n_steps", "batch_size", "n_epochs", "learning_rate", "gamma")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    # Stable-Baselines3's PPO does not normalise rewards.
    config = PpoConfig(**settings, normalize_rewards=False, diagnostics_interval=0)
    agent = Ppo(config, env, seed=seed, total_steps=options.total_steps)
    train(agent, options.total_steps)
    return evaluate(options, lambda obs: mode_action(agent, obs))


def train_sb3(options: ComparisonArguments, seed: int) -> float:
    """Mean evaluation return of Stable-Baselines3's agent after training.

    Raises:
        RequestError: Stable-Baselines3 is not installed.
    """
    try:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError as error:
        raise RequestError(f"Stable-Baselines3 is {NOT_INSTALLED}") from error
    env = make_vec_env(options.env, n_envs=options.num_envs, seed=seed)
    names = ("n_steps", "batch_size", "n_epochs", "learning_rate", "gamma")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    model = PPO("MlpPolicy", env, device="cpu", seed=seed, **settings)
    model.learn(options.total_steps)
    return evaluate(options, lambda obs: model.predict(obs, deterministic=True)[0])


def evaluate(options: ComparisonArguments, act: Act) -> float:
    """Mean return of whole episodes, from the same start states for both implementations."""
    return mean_return(act, options.env, episodes=options.episodes, seed=FIRST_EVALUATION_SEED)


def standard_error(values: list[float]) -> float:
    """The standard error of the mean; NaN for a single value."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
