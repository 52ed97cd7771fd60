"""``python scripts/ppo_against_sb3.py``: does our PPO learn what Stable-Baselines3's learns?

Both train with one set of hyperparameters, seed by seed, and are evaluated deterministically on
fresh episodes of the same environment. The means differ by chance alone if they are within a few
standard errors of each other.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any, final

import gymnasium
import torch

from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningArguments:
    """Trains both and prints every seed's return."""

    env: str = "Pendulum-v1"
    """A Gymnasium id."""
    total_steps: int = 100_000
    """Environment steps of each run."""
    seeds: int = 5
    """Runs of each."""
    num_envs: int = 8
    """As both name it: SB3 n_envs."""
    n_steps: int = 256
    """Steps of each environment in a window."""
    batch_size: int = 64
    """Of a minibatch."""
    n_epochs: int = 10
    """Passes over a window."""
    learning_rate: float = 1e-3
    """Constant."""
    gamma: float = 0.9
    """Discount."""
    episodes: int = 50
    """Of each evaluation."""


def run(arguments: Sequence[str]) -> None:
    """Trains, evaluates, prints.

    Raises:
        RequestError: the request is wrong, or Stable-Baselines3 is missing.
    """
    options = parse(LearningArguments, arguments, command="ppo_against_sb3")
    torch.set_num_threads(1)
    returns: dict[str, list[float]] = {"pgtoolkit": [], "stable-baselines3": []}
    for seed in range(options.seeds):
        returns["pgtoolkit"].append(ours(options, seed))
        returns["stable-baselines3"].append(theirs(options, seed))
        print(f"seed {seed}: " + ", ".join(f"{k} {v[-1]:.1f}" for k, v in returns.items()))
    means = {name: statistics.mean(found) for name, found in returns.items()}
    errors = {name: standard_error(found) for name, found in returns.items()}
    for name in returns:
        print(f"{name}: {means[name]:.1f}, standard error {errors[name]:.1f}")
    first, second = means.values()
    print(f"difference: {first - second:.1f}, standard error {math.hypot(*errors.values()):.1f}")


def standard_error(values: list[float]) -> float:
    """Of the mean."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def ours(options: LearningArguments, seed: int) -> float:
    """The mean return of our agent after training."""
    env = gymnasium.make_vec(options.env, options.num_envs, vectorization_mode="sync")
    names = ("num_envs", "n_steps", "batch_size", "n_epochs", "learning_rate", "gamma")
    config = PpoConfig(**{name: getattr(options, name) for name in names}, diagnostics_interval=0)
    agent = Ppo(config, env, seed=seed, total_steps=options.total_steps)
    for _ in range(-(-options.total_steps // (options.num_envs * options.n_steps))):
        agent.update(agent.collect())
    policy = agent.policy

    @torch.no_grad()
    def act(obs: Any) -> Any:
        action = policy(torch.as_tensor(obs, dtype=torch.float32).unsqueeze(0)).mode[0]
        return action.numpy() if action.dim() else int(action)

    return evaluate(options, act)


def theirs(options: LearningArguments, seed: int) -> float:
    """The mean return of Stable-Baselines3's agent after training.

    Raises:
        RequestError: it is not installed.
    """
    try:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError as error:
        raise RequestError(
            "Stable-Baselines3 is not installed: pip install 'policy-gradient-toolkit[bench]'"
        ) from error
    env = make_vec_env(options.env, n_envs=options.num_envs, seed=seed)
    names = ("n_steps", "batch_size", "n_epochs", "learning_rate", "gamma")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    model = PPO("MlpPolicy", env, device="cpu", seed=seed, **settings)
    model.learn(options.total_steps)
    return evaluate(options, lambda obs: model.predict(obs, deterministic=True)[0])


def evaluate(options: LearningArguments, act: Any) -> float:
    """The mean return of whole episodes, on the same starts for all."""
    env, returns = gymnasium.make(options.env), []
    for episode in range(options.episodes):
        obs, _ = env.reset(seed=10_000 + episode)
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(act(obs))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return statistics.mean(returns)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
