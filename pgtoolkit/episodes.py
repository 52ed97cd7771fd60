"""Returns and lengths of episodes, followed across windows."""

from typing import Any, final

import numpy as np

from pgtoolkit.window import Window


@final
class EpisodeTracker:
    """Adds up each environment's undiscounted reward until its episode ends."""

    def __init__(self, num_envs: int) -> None:
        self.running_return = np.zeros(num_envs)
        self.running_length = np.zeros(num_envs, dtype=np.int64)

    def update(self, window: Window) -> list[tuple[int, float, int]]:
        """The episodes that ended in this window: (environment, return, length), in time order."""
        reward = window.reward.detach().cpu().numpy().astype(np.float64)
        valid = window.valid.cpu().numpy()
        done = window.done.cpu().numpy() & valid
        # Sums from the window's start; an episode's return is the difference of two of them.
        total = np.cumsum(np.where(valid, reward, 0.0), axis=0)
        steps = np.cumsum(valid, axis=0)
        ended: list[tuple[int, float, int]] = []
        for t, env in zip(*np.nonzero(done), strict=True):
            episode_return = total[t, env] + self.running_return[env]
            length = steps[t, env] + self.running_length[env]
            ended.append((int(env), float(episode_return), int(length)))
            self.running_return[env], self.running_length[env] = -total[t, env], -steps[t, env]
        self.running_return += total[-1]
        self.running_length += steps[-1]
        return ended

    def state_dict(self) -> dict[str, Any]:
        return {
            "running_return": self.running_return.tolist(),
            "running_length": self.running_length.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.running_return = np.array(state["running_return"])
        self.running_length = np.array(state["running_length"], dtype=np.int64)
