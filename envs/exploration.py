"""The first transitions: what random actions lead to."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from pgtoolkit.envs.transition_model import Transitions
from pgtoolkit.seeding import stream_seed


def random_transitions(
    make: Callable[[], gymnasium.Env[Any, Any]], num_steps: int, *, num_episodes: int, seed: int
) -> tuple[Transitions, Tensor]:
    """``num_steps`` steps with actions drawn from the action space, in an environment of its own.

    An episode is left after ``num_steps / num_episodes`` steps if it has not ended, so that the
    starts are many.

    Returns:
        The transitions ``[num_steps]``, and each one's episode ``[num_steps]``, counted from 0.
    """
    env = make()
    env.action_space.seed(stream_seed(seed, "exploration actions"))
    rng = np.random.default_rng(stream_seed(seed, "exploration starts"))
    longest = max(num_steps // num_episodes, 1)
    rows: list[tuple[Any, ...]] = []
    episode, age = -1, longest
    for _ in range(num_steps):
        if age == longest:
            observation, _ = env.reset(seed=int(rng.integers(2**31)))
            episode, age = episode + 1, 0
        action = env.action_space.sample()
        after, reward, terminated, truncated, _ = env.step(action)
        # Copies: an environment may write into the array that it returned.
        rows.append((np.array(observation), action, np.array(after), reward, episode))
        observation, age = after, longest if terminated or truncated else age + 1
    env.close()
    columns = [torch.as_tensor(np.array(column)) for column in zip(*rows, strict=True)]
    return Transitions(*(column.float() for column in columns[:4])), columns[4]
