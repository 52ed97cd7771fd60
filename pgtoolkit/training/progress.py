"""The state of a training run beside its agent: counts, recent episodes, latest scalars."""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
from torch import Tensor

from pgtoolkit import parallel
from pgtoolkit.agent import Metrics
from pgtoolkit.rollouts.episodes import EpisodeTracker, tracker_schema
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import (
    StateError,
    anything,
    at,
    entries,
    equal,
    flag,
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

TIMED_TAGS = ("time/", "gradient/overhead")
"""Beginnings of the tags of scalars that measure time."""

MEASURED_GROUPS, MEASUREMENT = ("gradient", "eval/"), "gradient/trajectories"
"""Beginnings of the tags of measurements and evaluations, and a tag of every measurement."""

PROGRESS_FIELDS = (
    "num_steps",
    "num_updates",
    "window_steps",
    "best_return",
    "eval_return",
    "eval_steps",
    "next_eval",
    "next_checkpoint",
    "cpu_seconds",
)
"""Fields of :class:`Progress` that are saved as they are."""


def metric(value: Any, path: str) -> None:
    """A schema: a scalar, or a vector over the steps of a window; it may be NaN."""
    if not isinstance(value, Tensor) or value.dim() > 1 or value.is_complex():
        raise StateError(path, "is not a tensor of numbers with at most one axis")


STATE_SCHEMA = entries(
    {
        "num_steps": integer(),
        "num_updates": integer(),
        "window_steps": integer(1),
        "best_return": optional(number()),
        "eval_return": optional(number()),
        "eval_steps": optional(integer()),
        "next_eval": integer(),
        "next_checkpoint": integer(),
        "returns": series(number(), longest=RECENT_EPISODES),
        "lengths": series(integer(1), longest=RECENT_EPISODES),
        "successes": series(flag, longest=RECENT_EPISODES),
        "tracker": anything,
        "diagnosis": anything,
        "scalars": mapping(number(finite=False)),
        "pending": optional(mapping(metric)),
        "cpu_seconds": optional(number()),
    },
    absent=("scalars", "pending", "cpu_seconds", "successes", "eval_steps"),
)


def is_timed(tag: str) -> bool:
    """Whether a scalar measures time, so that no two runs have it alike."""
    return tag.startswith(TIMED_TAGS)


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
        eval_steps: environment steps at the latest evaluation; None in a run that began before that
            was kept, until its next one.
        next_eval: environment step of the next evaluation.
        next_checkpoint: environment step of the next checkpoint.
        returns: returns of the recent training episodes.
        lengths: lengths of the same episodes.
        successes: whether recent training episodes were a success, from the first on that said it;
            empty if none did.
        tracker: follows episodes across windows; None before the first window.
        scalars: TensorBoard tag to its latest value; those of one measurement or evaluation are of
            one step.
        diagnosis: reads the scalars of every update and says what is wrong.
        pending: metrics of the latest update as long as it is not logged: its evaluation has not
            been made, because the run was stopped before it. None otherwise.
        cpu_seconds: CPU time of all processes and threads in training so far, without evaluations;
            None in a run that began before that was counted.
    """

    num_steps: int = 0
    num_updates: int = 0
    window_steps: int = 1
    best_return: float | None = None
    eval_return: float | None = None
    eval_steps: int | None = None
    next_eval: int = 0
    next_checkpoint: int = 0
    returns: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))
    lengths: deque[int] = dataclasses.field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))
    successes: deque[bool] = dataclasses.field(
        default_factory=lambda: deque(maxlen=RECENT_EPISODES)
    )
    tracker: EpisodeTracker | None = None
    scalars: dict[str, float] = dataclasses.field(default_factory=dict)
    diagnosis: Diagnosis = dataclasses.field(default_factory=Diagnosis)
    pending: Metrics | None = None
    cpu_seconds: float | None = 0.0
    _counted_at: float = dataclasses.field(default_factory=time.process_time, repr=False)

    @property
    def mean_return(self) -> float | None:
        """Mean return of the recent training episodes."""
        return float(np.mean(self.returns)) if self.returns else None

    def count(self, window: Window) -> None:
        """Adds the steps of a window and the episodes that ended in it."""
        self.tracker = self.tracker or EpisodeTracker(window.num_envs)
        for _, episode_return, length, success in self.tracker.update(window):
            self.returns.append(episode_return)
            self.lengths.append(length)
            if success is not None or self.successes:
                self.successes.append(bool(success))
        self.window_steps = int(window.valid.sum())
        self.num_steps += self.window_steps
        self.num_updates += 1

    def count_cpu(self) -> None:
        """Adds the CPU time since the last call of this or of :meth:`skip_cpu`."""
        now = time.process_time()
        if self.cpu_seconds is not None:
            self.cpu_seconds += sum(parallel.exchange(now - self._counted_at, "CPU time"))
        self._counted_at = now

    def skip_cpu(self) -> None:
        """Leaves out the CPU time since the last call of this or of :meth:`count_cpu`."""
        self._counted_at = time.process_time()

    def finished(self, total_steps: int) -> bool:
        """Whether another window as long as the last would exceed ``total_steps``."""
        return self.num_updates > 0 and self.num_steps + self.window_steps > total_steps

    def done(self, total_steps: int) -> bool:
        """Whether there is nothing left to train, to evaluate or to log."""
        return self.pending is None and self.finished(total_steps)

    @property
    def purge_step(self) -> int:
        """Step from which events that were logged after this state are void."""
        return self.num_steps + (self.pending is None)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in PROGRESS_FIELDS} | {
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "successes": list(self.successes),
            "tracker": None if self.tracker is None else self.tracker.state_dict(),
            "diagnosis": self.diagnosis.state_dict(),
            "scalars": {tag: x for tag, x in self.scalars.items() if not is_timed(tag)},
            "pending": None if self.pending is None else dict(self.pending),
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
            setattr(self, name, state.get(name))
        self.returns.extend(state["returns"])
        self.lengths.extend(state["lengths"])
        self.successes.extend(state.get("successes", ()))
        if state["tracker"] is not None:
            with at("tracker"):
                require(state["tracker"], mapping(series(anything)))
                self.tracker = EpisodeTracker(len(state["tracker"].get("running_return", ())))
                self.tracker.load_state_dict(state["tracker"])
        with at("diagnosis"):
            self.diagnosis.load_state_dict(state["diagnosis"])
        self.scalars |= state.get("scalars", {})
        self.pending = state.get("pending")


def latest(scalars: Mapping[str, float], row: Mapping[str, float]) -> dict[str, float]:
    """The latest scalars after a row of them.

    A measurement or an evaluation takes the place of the one before: a tag of its group that it has
    not, such as the end of an interval that is not known, is no longer among them.
    """
    renewed = {group_of(tag) for tag in row if tag.startswith(MEASURED_GROUPS)}
    if MEASUREMENT not in row:
        renewed.discard("gradient")  # which has tags of every update too
    return {tag: x for tag, x in scalars.items() if group_of(tag) not in renewed} | dict(row)


def group_of(tag: str) -> str:
    """``gradient/pathwise`` of ``gradient/pathwise/variance``."""
    return tag.rpartition("/")[0]


Watch = Callable[[Progress], bool]
"""Follows a run: called after every update; True stops it."""


def unwatched(_: Progress) -> bool:
    """The ``watch`` of a run that nobody stops."""
    return False


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
