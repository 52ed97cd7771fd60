"""Runs the runs of a comparison, some at a time, until all are complete or have failed."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, final

from pgtoolkit.scripts.comparison.plan import PlannedRun
from pgtoolkit.scripts.comparison.processes import Child, tail
from pgtoolkit.scripts.comparison.stages import finish_stage, next_arguments
from pgtoolkit.training.storage.lock import is_locked

SECONDS_BETWEEN_POLLS = 0.1
SECONDS_BETWEEN_TRIES = 2.0
"""Pause before a run that another process is writing is looked at again."""

WRITTEN_BY_ANOTHER = "is being written by"
"""Part of the message with which a command refuses a folder that is locked."""


class View(Protocol):
    """Shows the progress of a comparison."""

    def advance(self, steps: int, complete: int, running: int, failed: int) -> None:
        """Called often: environment steps of all runs, and numbers of runs."""

    def complete(self, run: PlannedRun) -> None:
        """Called for each run that is complete, those of an earlier call included."""

    def failed(self, run: PlannedRun, how: str) -> None:
        """Called for each run that failed, with the last lines of its standard error."""


@final
class Schedule:
    """The state of a comparison: which runs wait, are at work, are complete, and have failed.

    Args:
        runs: what is to be run.
        jobs: number of processes at a time.
        logs: folder for the output of the processes.
        view: shows the progress.
    """

    def __init__(self, runs: Sequence[PlannedRun], jobs: int, logs: Path, view: View) -> None:
        self.jobs, self.logs, self.view = jobs, logs, view
        self.waiting, self.running = deque(runs), dict[str, tuple[PlannedRun, Child]]()
        self.complete, self.failed = list[PlannedRun](), list[PlannedRun]()
        self.not_before: dict[str, float] = {}

    @property
    def unfinished(self) -> bool:
        """Whether there are runs that have neither failed nor are complete."""
        return bool(self.waiting or self.running)

    @property
    def steps(self) -> int:
        """Environment steps of all runs so far, by their last progress lines."""
        steps = sum(run.settings.loop.total_steps for run in (*self.complete, *self.failed))
        for run, child in self.running.values():
            total = run.settings.loop.total_steps
            steps += total if child.kind == "evaluate" else min(child.steps(), total)
        return steps

    def complete_in_order(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """The complete runs, in the order of ``runs``."""
        names = {run.name for run in self.complete}
        return [run for run in runs if run.name in names]

    def run(self, stop_requested: Callable[[], bool]) -> None:
        """Runs until everything has ended, or until it is to stop and the children have stopped."""
        try:
            while self.unfinished and not stop_requested():
                self.advance()
                if self.unfinished:
                    time.sleep(SECONDS_BETWEEN_POLLS)
        finally:
            self.stop()

    def advance(self) -> None:
        """Takes the processes that have ended, starts the next ones, and shows the progress."""
        self._start_some()
        self._take_ended()
        self._show()

    def stop(self) -> None:
        """Asks every child to stop, and waits for them; a training writes a checkpoint."""
        children = [child for _, child in self.running.values()]
        for child in children:
            child.stop()
        for child in children:
            child.wait()

    def _start_some(self) -> None:
        for _ in range(len(self.waiting)):
            if len(self.running) >= self.jobs:
                return
            run = self.waiting.popleft()
            if self.not_before.get(run.name, 0.0) > time.monotonic():
                self.waiting.append(run)
            elif is_locked(run.path):
                self._postpone(run)
            else:
                self._go_on(run)

    def _postpone(self, run: PlannedRun) -> None:
        """Puts a run that another process is writing at the end of the queue."""
        self.not_before[run.name] = time.monotonic() + SECONDS_BETWEEN_TRIES
        self.waiting.append(run)

    def _go_on(self, run: PlannedRun, *, after: str = "") -> None:
        """Starts a run's next stage; one that does not come beyond the stage before has failed."""
        arguments = next_arguments(run)
        if arguments is None:
            self.complete.append(run)
            self.view.complete(run)
        elif after == "evaluate" or (after and arguments[0] != "evaluate"):
            self.failed.append(run)
            self.view.failed(run, f"{after}: it ended, and its result is not in {run.path}")
        else:
            self.running[run.name] = run, Child.start(arguments, self.logs / run.name)

    def _take_ended(self) -> None:
        """Takes the processes that have ended: their runs go on, are postponed or have failed."""
        for name, (run, child) in list(self.running.items()):
            if not child.ended():
                continue
            del self.running[name]
            child.stop()  # closes the pipe
            if child.wait() == 0:
                finish_stage(run, child.kind)
                self._go_on(run, after=child.kind)
            elif WRITTEN_BY_ANOTHER in tail(child.errors):
                self._postpone(run)
            else:
                self.failed.append(run)
                self.view.failed(run, child.end_in_words())

    def _show(self) -> None:
        self.view.advance(self.steps, len(self.complete), len(self.running), len(self.failed))
