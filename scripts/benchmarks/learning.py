"""Training and evaluation of agents for benchmarks that compare them with other packages.

Evaluations take a function from observations to actions, so agents of all packages are evaluated in
the same way.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from pgtoolkit.agent import Agent

Act = Callable[[NDArray[Any]], NDArray[Any]]
"""Maps observations ``[N, ...]`` to actions ``[N, ...]``."""


def train(agent: Agent, steps: int) -> int:
    """Updates the agent with whole windows of at least ``steps`` environment steps in all.

    Returns:
        The number of environment steps made.
    """
    done = 0
    while done < steps:
        window = agent.collect()
        agent.update(window)
        done += window.num_steps * window.num_envs
    return done


@torch.no_grad()
def mode_action(agent: Agent, obs: NDArray[Any]) -> NDArray[Any]:
    """The mode of the agent's policy for observations ``[N, ...]``."""
    found: NDArray[Any] = agent.policy(torch.as_tensor(obs).float()).mode.numpy()
    return found


def mean_return(
    act: Act, env_id: str, *, episodes: int, seed: int, max_episode_steps: int | None = None
) -> float:
    """Mean undiscounted return of whole episodes of a Gymnasium environment.

    Args:
        act: computes the actions.
        env_id: the environment's Gymnasium id.
        episodes: number of episodes, which run side by side.
        seed: seed of the first episode's start state; the following episodes have the next seeds.
        max_episode_steps: time limit in steps; the environment's own by default.
    """
    env = gymnasium.make_vec(
        env_id, episodes, vectorization_mode="sync", max_episode_steps=max_episode_steps
    )
    obs, _ = env.reset(seed=seed)
    total, running = 0.0, np.ones(episodes, dtype=np.bool_)
    while running.any():
        obs, reward, terminated, truncated, _ = env.step(act(obs))
        total += float(reward[running].sum())
        running &= ~(terminated | truncated)
    return total / episodes
