"""Evaluations of the benchmarks against a plain loop over single episodes."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from pgtoolkit.scripts.benchmarks.learning import mean_return


def upright(obs: NDArray[Any]) -> NDArray[Any]:
    """CartPole actions that push the cart under the pole."""
    return (obs[:, 2] + 0.3 * obs[:, 3] + 0.05 * obs[:, 0] > 0).astype(np.int64)


@pytest.mark.parametrize("limit", [None, 20])
def test_the_mean_return_is_that_of_single_episodes(limit: int | None) -> None:
    """Episode ``i`` starts from seed ``100 + i``, and steps after its end do not count."""
    returns = []
    for episode in range(4):
        env = gymnasium.make("CartPole-v1", max_episode_steps=limit)
        obs, _ = env.reset(seed=100 + episode)
        total, over = 0.0, False
        while not over:
            action = int(upright(np.asarray(obs)[None])[0])
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    found = mean_return(upright, "CartPole-v1", episodes=4, seed=100, max_episode_steps=limit)
    assert found == pytest.approx(np.mean(returns))


def test_short_episodes_count_as_much_as_long_ones() -> None:
    """Pushing always right: each episode ends on its own, after some ten steps."""
    found = mean_return(lambda obs: np.ones(len(obs), np.int64), "CartPole-v1", episodes=8, seed=0)
    assert 7 < found < 12
