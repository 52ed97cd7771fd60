"""Runs the runs of a comparison, some at a time, until all are complete or have failed."""

import logging
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, final

from pgtoolkit.scripts.comparison.plan import PlannedRun
from pgtoolkit.scripts.comparison.stages import finish_stage, next_arguments
from pgtoolkit.scripts.engines.base import Engine, Job, tail
from pgtoolkit.training.storage.lock import is_locked

LOG = logging.getLogger("pgtoolkit")

SECONDS_BETWEEN_POLLS = 0.1
SECONDS_BETWEEN_TRIES = 2.0
"""Pause before a run that another process is writing is looked at again."""

MAX_LOSSES = 10
"""Losses of a run's machine after which it has failed: it may be the run that ends the machines."""

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
        jobs: number of commands at a time.
        logs: folder for the output of the processes.
        view: shows the progress.
        engine: where the processes run.
    """

    def __init__(
        self, runs: Sequence[PlannedRun], jobs: int, logs: Path, view: View, engine: Engine
    ) -> None:
        self.jobs, self.logs, self.view, self.engine = jobs, logs, view, engine
        self.waiting, self.running = deque(runs), dict[str, tuple[PlannedRun, str, Job]]()
        self.losses = Counter[str]()
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
        for run, kind, job in self.running.values():
            total = run.settings.loop.total_steps
            steps += total if kind == "evaluate" else min(job.log.steps(), total)
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
        with self.engine.batch():
            self._start_some()
        self._take_ended()
        self._show()

    def stop(self) -> None:
        """Asks every command to stop, and waits for them; a training writes a checkpoint."""
        jobs = [job for _, _, job in self.running.values()]
        for job in jobs:
            job.stop()
        for job in jobs:
            job.wait()

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
            job = self.engine.start(arguments, self.logs / run.name)
            self.running[run.name] = run, arguments[0], job

    def _take_ended(self) -> None:
        """Takes the processes that have ended: their runs go on, are postponed or have failed."""
        for name, (run, kind, job) in list(self.running.items()):
            if not job.ended():
                continue
            del self.running[name]
            code = job.wait()
            if code == 0:
                finish_stage(run, kind)
                self._go_on(run, after=kind)
            elif code is None and self.losses[name] < MAX_LOSSES:
                self.losses[name] += 1
                LOG.warning("%s: its machine was lost; it goes on elsewhere", run.title)
                self._postpone(run)
            elif WRITTEN_BY_ANOTHER in tail(job.log.errors):
                self._postpone(run)
            else:
                self.failed.append(run)
                self.view.failed(run, end_in_words(kind, code, job))

    def _show(self) -> None:
        self.view.advance(self.steps, len(self.complete), len(self.running), len(self.failed))


def end_in_words(kind: str, code: int | None, job: Job) -> str:
    """How a command ended that failed, with its last lines on standard error."""
    how = "its machine was lost again and again"
    if code is not None:
        how = f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
    return "\n".join((f"{kind}: {how}", *job.log.last_errors()))
