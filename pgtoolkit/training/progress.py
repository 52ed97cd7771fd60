"""The state of a training run beside its agent: counts, recent episodes, latest scalars."""

import dataclasses
from collections import deque
from typing import Any, final

import numpy as np

from pgtoolkit.rollouts.episodes import EpisodeTracker, tracker_schema
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import (
    anything,
    at,
    entries,
    equal,
    integer,
    mapping,
    number,
    optional,
    require,
    series,
)
from pgtoolkit.training.diagnosis import Diagnosis

RECENT_EPISODES = 100
"""Number of training episodes over which returns and lengths are averaged."""

PROGRESS_FIELDS = (
    "num_steps",
    "num_updates",
    "window_steps",
    "best_return",
    "eval_return",
    "next_eval",
    "next_checkpoint",
)
"""Fields of :class:`Progress` that are saved as they are."""

STATE_SCHEMA = entries(
    {
        "num_steps": integer(),
        "num_updates": integer(),
        "window_steps": integer(1),
        "best_return": optional(number()),
        "eval_return": optional(number()),
        "next_eval": integer(),
        "next_checkpoint": integer(),
        "returns": series(number(), longest=RECENT_EPISODES),
        "lengths": series(integer(1), longest=RECENT_EPISODES),
        "tracker": anything,
        "diagnosis": anything,
    }
)


@final
@dataclasses.dataclass
class Progress:
    """The state of a run: counts, recent episodes, and the latest scalars.

    Attributes:
        num_steps: valid environment steps so far.
        num_updates: updates so far.
        window_steps: valid steps of the latest window.
        best_return: the best evaluation's mean return.
        eval_return: the latest evaluation's mean return.
        next_eval: environment step of the next evaluation.
        next_checkpoint: environment step of the next checkpoint.
        returns: returns of the recent training episodes.
        lengths: lengths of the same episodes.
        tracker: follows episodes across windows; None before the first window.
        scalars: TensorBoard tag to its latest value.
        diagnosis: reads the scalars of every update and says what is wrong.
    """

    num_steps: int = 0
    num_updates: int = 0
    window_steps: int = 1
    best_return: float | None = None
    eval_return: float | None = None
    next_eval: int = 0
    next_checkpoint: int = 0
    returns: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))
    lengths: deque[int] = dataclasses.field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))
    tracker: EpisodeTracker | None = None
    scalars: dict[str, float] = dataclasses.field(default_factory=dict)
    diagnosis: Diagnosis = dataclasses.field(default_factory=Diagnosis)

    @property
    def mean_return(self) -> float | None:
        """Mean return of the recent training episodes."""
        return float(np.mean(self.returns)) if self.returns else None

    def count(self, window: Window) -> None:
        """Adds the steps of a window and the episodes that ended in it."""
        self.tracker = self.tracker or EpisodeTracker(window.num_envs)
        for _, episode_return, length in self.tracker.update(window):
            self.returns.append(episode_return)
            self.lengths.append(length)
        self.window_steps = int(window.valid.sum())
        self.num_steps += self.window_steps
        self.num_updates += 1

    def finished(self, total_steps: int) -> bool:
        """Whether another window as long as the last would exceed ``total_steps``."""
        return self.num_updates > 0 and self.num_steps + self.window_steps > total_steps

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in PROGRESS_FIELDS} | {
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "tracker": None if self.tracker is None else self.tracker.state_dict(),
            "diagnosis": self.diagnosis.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            StateError: it does not fit.
        """
        require(state, STATE_SCHEMA)
        count = len(state["returns"])
        require(state["lengths"], series(anything, count, count), "lengths")
        if state["num_updates"] == 0:
            require(state["num_steps"], equal(0), "num_steps")
        for name in PROGRESS_FIELDS:
            setattr(self, name, state[name])
        self.returns.extend(state["returns"])
        self.lengths.extend(state["lengths"])
        if state["tracker"] is not None:
            with at("tracker"):
                require(state["tracker"], mapping(series(anything)))
                self.tracker = EpisodeTracker(len(state["tracker"].get("running_return", ())))
                self.tracker.load_state_dict(state["tracker"])
        with at("diagnosis"):
            self.diagnosis.load_state_dict(state["diagnosis"])


def require_agreement(progress: Progress, agent: object) -> None:
    """Compares the counts of a loaded run with those of its loaded agent.

    An agent that steps its environments with a collector counts in it what the run counts.

    Raises:
        StateError: they contradict each other.
    """
    collector = getattr(agent, "collector", None)
    counted = getattr(collector, "num_steps", progress.num_steps)
    require(progress.num_steps, equal(counted), "progress/num_steps")
    if collector is not None and progress.tracker is not None:
        num_envs = collector.config.num_envs
        tracker_state = progress.tracker.state_dict()
        require(tracker_state, tracker_schema(num_envs), "progress/tracker")
