"""One trial at work: its runs one after the other, and its evaluations against other trials'."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

from pgtoolkit.scripts.comparison.curves import Curve
from pgtoolkit.scripts.comparison.plan import PlannedRun
from pgtoolkit.scripts.comparison.results import as_curve, read_result
from pgtoolkit.scripts.comparison.scalars import EVALUATION, Events, median_snr, read_scalars
from pgtoolkit.scripts.comparison.schedule import Schedule
from pgtoolkit.scripts.engines.base import Engine
from pgtoolkit.scripts.tuning.pruning import Points, Pruning, Values, values_at_points
from pgtoolkit.scripts.tuning.study import Study, Taken

SECONDS_BETWEEN_READINGS = 1.0

NOT_FINITE = "the mean return of its final evaluation is not finite"


@final
class Work:
    """A trial of this process.

    Args:
        study: the study.
        taken: the trial.
        runs: its runs, one for each seed in order.
        pruning: the rule, and where trials are compared; None if none is to be pruned.
        logs: folder for the output of the processes.
        engine: where they run.
    """

    def __init__(
        self,
        study: Study,
        taken: Taken,
        runs: Sequence[PlannedRun],
        pruning: tuple[Pruning, Points] | None,
        logs: Path,
        engine: Engine,
    ) -> None:
        self.study, self.taken, self.runs, self.pruning = study, taken, runs, pruning
        self._failures = Failures()
        self.schedule = Schedule(runs, 1, logs, self._failures, engine)
        self._events: dict[str, Events] = {}
        self._last_reading = 0.0

    @property
    def number(self) -> int:
        return self.taken.trial.number

    @property
    def steps(self) -> int:
        """Environment steps of all its runs so far."""
        return self.schedule.steps

    def advance(self) -> bool:
        """Goes on a little; returns whether the trial has ended, which the study then knows.

        The evaluations are told in order, and each before the trial may be complete. So whether it
        is pruned does not depend on how fast this process looks.
        """
        self.schedule.advance()
        if self.schedule.failed:
            self.end(lambda: self.study.fail(self.taken, self._failures.reason))
            return True
        done = len(self.schedule.complete) == len(self.runs)
        due = time.monotonic() - self._last_reading > SECONDS_BETWEEN_READINGS
        if self.pruning is not None and (done or due):
            self._last_reading = time.monotonic()
            if self._is_behind(*self.pruning):
                self.end(lambda: self.study.prune(self.taken))
                return True
        if done:
            self.end(self._complete)
        return done

    def end(self, tell: Callable[[], None]) -> None:
        """Stops the processes, then tells the study."""
        self.schedule.stop()
        begun = [run.path for run in self.begun if run.path.is_dir()]
        self.study.note_snrs(self.taken, [median_snr(read_scalars(path)) for path in begun])
        tell()

    def leave(self) -> None:
        """Stops the processes and leaves the trial to a later call."""
        self.schedule.stop()
        self.taken.release.close()

    def _complete(self) -> None:
        results = [read_result(run) for run in self.runs]
        returns = [result.final_return for result in results]
        seconds = [r.cpu_seconds for r in results if r.cpu_seconds is not None]
        if not all(-float("inf") < value < float("inf") for value in returns):
            self.study.fail(self.taken, NOT_FINITE)
        else:
            self.study.complete(self.taken, returns, sum(seconds) if seconds else None)

    def _is_behind(self, pruning: Pruning, points: Points) -> bool:
        """Tells the study the evaluations since the last call, until one falls behind."""
        own: Values = values_at_points([self._curve_of(run) for run in self.begun], points)
        told = self.study.told(self.number)
        others = self.study.told_by_others(self.number, complete=pruning.only_complete)
        for point in sorted(own):
            if point not in told:
                self.taken.trial.report(own[point], point)
            before = {p: v for p, v in own.items() if p <= point}
            if pruning.rule(before, others, point, points):
                return True
        return False

    @property
    def begun(self) -> list[PlannedRun]:
        """The runs that have begun, in the order of the seeds."""
        complete = self.schedule.complete
        count = next((i for i, run in enumerate(self.runs) if run not in complete), len(self.runs))
        return list(self.runs[: count + 1])

    def _curve_of(self, run: PlannedRun) -> tuple[Curve | None, bool]:
        """The evaluations of a run so far, and whether its training has ended."""
        if run.name not in self._events:
            if not run.path.is_dir():
                return None, False
            self._events[run.name] = Events(run.path)
        events = self._events[run.name]
        events.read_on()
        steps, values = events.series(EVALUATION)
        return as_curve([float(step) for step in steps], values), self._is_trained(run)

    def _is_trained(self, run: PlannedRun) -> bool:
        """Whether the training process has ended, and so has written all its evaluations."""
        at_work = self.schedule.running.get(run.name)
        evaluates = at_work is not None and at_work[1] == "evaluate"
        return evaluates or run in self.schedule.complete


@final
class Failures:
    """The view of a trial's runs: keeps why one failed. The study's own view shows the rest."""

    def __init__(self) -> None:
        self.reason = ""

    def advance(self, steps: int, complete: int, running: int, failed: int) -> None:
        """Nothing is shown."""

    def complete(self, run: PlannedRun) -> None:
        """Nothing is shown."""

    def failed(self, run: PlannedRun, how: str) -> None:
        self.reason = f"seed {run.seed}: {how}"
