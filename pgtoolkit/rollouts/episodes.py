"""Returns and lengths of episodes that may span several windows."""

from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.rollouts.success import UNKNOWN
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import Schema, entries, flag, integer, number, require, series


@final
class Ended(NamedTuple):
    """An episode that ended."""

    env: int
    """The environment's index."""
    episode_return: float
    """Undiscounted."""
    length: int
    """In steps."""
    success: bool | None
    """``is_success`` in the info of its last step; None where that does not say it."""


@final
class EpisodeTracker:
    """Sums each environment's undiscounted reward from an episode's first step to its last.

    An episode is counted only if a window contained its first step.
    """

    def __init__(self, num_envs: int) -> None:
        self.running_return = np.zeros(num_envs)
        self.running_length = np.zeros(num_envs, dtype=np.int64)
        self.seen_first = np.zeros(num_envs, dtype=np.bool_)
        self.after_end = np.ones(num_envs, dtype=np.bool_)

    def update(self, window: Window) -> list[Ended]:
        """The episodes that ended in this window, in order of time."""
        valid = window.valid.cpu().numpy()
        reward = np.where(valid, window.reward.detach().double().cpu().numpy(), 0.0)
        done = window.done.cpu().numpy() & valid
        episode_start = self._episode_start(window, done)
        # Sums from the window's start: an episode's return is the difference of two of them.
        total, steps = np.cumsum(reward, axis=0), np.cumsum(valid, axis=0)
        success = None if window.success is None else window.success.cpu().numpy()
        ended: list[Ended] = []
        for t, env in zip(*np.nonzero(episode_start | done), strict=True):
            if episode_start[t, env]:
                self.running_return[env] = reward[t, env] - total[t, env]
                self.running_length[env] = valid[t, env] - steps[t, env]
                self.seen_first[env] = True
            if done[t, env] and self.seen_first[env]:
                episode_return = self.running_return[env] + total[t, env]
                length = self.running_length[env] + steps[t, env]
                solved = UNKNOWN if success is None else success[t, env]
                known = None if solved == UNKNOWN else bool(solved)
                ended.append(Ended(int(env), float(episode_return), int(length), known))
        self.running_return += total[-1]
        self.running_length += steps[-1]
        self.after_end = done[-1]
        return ended

    def _episode_start(self, window: Window, done: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``[T, N]``: the first steps of episodes."""
        if window.episode_start is not None:
            return window.episode_start.cpu().numpy()
        return np.concatenate([self.after_end[None], done[:-1]])

    def state_dict(self) -> dict[str, Any]:
        return {
            "running_return": self.running_return.tolist(),
            "running_length": self.running_length.tolist(),
            "seen_first": self.seen_first.tolist(),
            "after_end": self.after_end.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            StateError: it does not fit, as one of another number of environments.
        """
        require(state, tracker_schema(len(self.running_return)))
        self.running_return = np.array(state["running_return"])
        self.running_length = np.array(state["running_length"], dtype=np.int64)
        self.seen_first = np.array(state["seen_first"], dtype=np.bool_)
        self.after_end = np.array(state["after_end"], dtype=np.bool_)


def tracker_schema(num_envs: int) -> Schema:
    """The schema of the state of an :class:`EpisodeTracker`."""
    kinds = {
        "running_return": number(),
        "running_length": integer(),
        "seen_first": flag,
        "after_end": flag,
    }
    return entries({name: series(kind, num_envs, num_envs) for name, kind in kinds.items()})
