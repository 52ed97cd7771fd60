"""Trains SAC or TD3 and Stable-Baselines3's with the same settings; learning curves of both."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, final

import gymnasium

from pgtoolkit.agents.sac import Sac, SacConfig
from pgtoolkit.agents.td3 import Td3, Td3Config
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.benchmarks.learning import Act, mean_return, mode_action
from pgtoolkit.scripts.benchmarks.timing import NOT_INSTALLED

FIRST_EVALUATION_SEED = 10_000
Curve = list[dict[str, float]]
"""Points of a learning curve: environment steps, mean return, CPU seconds of training so far."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class OffPolicyArguments:
    """Trains our SAC or TD3 and Stable-Baselines3's, and writes the curves of every seed.

    A command that was stopped goes on where it was: runs that are in the file are not made again.
    """

    json: Path
    """File of the results, which is read first if it exists."""
    agent: Literal["sac", "td3"] = "sac"
    """Which of the two."""
    env: str = "Pendulum-v1"
    """The environment's Gymnasium id."""
    total_steps: int = 20_000
    """Environment steps of each run."""
    eval_interval: int = 2_000
    """Environment steps between two points of a curve."""
    seeds: int = 5
    """Number of runs of each implementation, with seeds 0, 1, 2, ..."""
    learning_rate: float = 3e-4
    """Adam's learning rate for all networks."""
    learning_starts: int = 1_000
    """Steps with random actions at the start."""
    batch_size: int = 256
    """Transitions in a minibatch."""
    width: int = 256
    """Units of each of the two hidden layers."""
    action_noise: float = 0.1
    """td3: standard deviation of the exploration noise, of a box [-1, 1]."""
    episodes: int = 20
    """Number of episodes in each evaluation."""


def train_ours(options: OffPolicyArguments, seed: int) -> Curve:
    """The learning curve of our agent."""
    env = gymnasium.make_vec(options.env, 1, vectorization_mode="sync")
    settings: dict[str, Any] = {
        "learning_rate": options.learning_rate,
        "learning_starts": options.learning_starts,
        "batch_size": options.batch_size,
        "hidden": (options.width, options.width),
        "diagnostics_interval": 0,
    }
    agent: Any
    if options.agent == "sac":
        agent = Sac(SacConfig(**settings), env, seed=seed, total_steps=options.total_steps)
    else:
        config = Td3Config(**settings, action_noise=options.action_noise)
        agent = Td3(config, env, seed=seed, total_steps=options.total_steps)

    def train(steps: int) -> None:
        while agent.collector.num_steps + agent.config.n_steps <= steps:
            agent.update(agent.collect())

    return curve(options, train, lambda obs: mode_action(agent, obs))


def train_sb3(options: OffPolicyArguments, seed: int) -> Curve:
    """The learning curve of Stable-Baselines3's agent.

    Raises:
        RequestError: Stable-Baselines3 is not installed.
    """
    try:
        import numpy as np
        import stable_baselines3
        from stable_baselines3.common.noise import NormalActionNoise
    except ImportError as error:
        raise RequestError(f"Stable-Baselines3 is {NOT_INSTALLED}") from error
    env = gymnasium.make(options.env)
    shape = env.action_space.shape or (1,)
    noise = NormalActionNoise(np.zeros(shape), np.full(shape, options.action_noise))
    more: dict[str, Any] = {} if options.agent == "sac" else {"action_noise": noise}
    model = getattr(stable_baselines3, options.agent.upper())(
        "MlpPolicy",
        env,
        device="cpu",
        seed=seed,
        learning_rate=options.learning_rate,
        learning_starts=options.learning_starts,
        batch_size=options.batch_size,
        policy_kwargs={"net_arch": [options.width, options.width]},
        **more,
    )

    def train(steps: int) -> None:
        model.learn(steps - model.num_timesteps, reset_num_timesteps=model.num_timesteps == 0)

    return curve(options, train, lambda obs: model.predict(obs, deterministic=True)[0])


def curve(options: OffPolicyArguments, train: Callable[[int], None], act: Act) -> Curve:
    """Trains up to each evaluation and evaluates, from the same starts for both implementations.

    Args:
        options: steps and evaluations.
        train: trains until there were so many environment steps in all.
        act: the deterministic policy.
    """
    found: Curve = []
    seconds = 0.0
    for steps in range(options.eval_interval, options.total_steps + 1, options.eval_interval):
        began = time.process_time()
        train(steps)
        seconds += time.process_time() - began
        value = mean_return(act, options.env, episodes=options.episodes, seed=FIRST_EVALUATION_SEED)
        found.append({"steps": float(steps), "return": value, "cpu_s": seconds})
    return found
