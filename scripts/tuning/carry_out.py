"""Carries out the trials of a study: some at a time, until it has as many as it shall have."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.scripts.cli.streams import unfailing_output
from pgtoolkit.scripts.comparison.logs import make_logs_folder
from pgtoolkit.scripts.comparison.plan import PlannedRun, plan_runs
from pgtoolkit.scripts.comparison.schedule import SECONDS_BETWEEN_POLLS
from pgtoolkit.scripts.comparison.variants import Variant
from pgtoolkit.scripts.engines.base import Engine
from pgtoolkit.scripts.tuning.pruning import RULES, Points, PruneName
from pgtoolkit.scripts.tuning.study import Study, Taken
from pgtoolkit.scripts.tuning.view import StudyView, counts_text
from pgtoolkit.scripts.tuning.work import Work
from pgtoolkit.training.stop import Interruption, StopSignals


@final
@dataclasses.dataclass(frozen=True)
class Plan:
    """What the trials of a study have in common."""

    agent: str
    fixed: Mapping[str, Any]
    """The settings that are not searched and differ from the defaults, with ``env``."""
    total_steps: int
    seeds: range
    final_episodes: int
    points: Points | None
    """Where trials are pruned; None for nowhere."""
    prune: PruneName = "median"
    """By which rule."""

    @property
    def seeds_text(self) -> str:
        """``seed 3``, or ``seeds 0, 1``."""
        return f"seed{'s' if len(self.seeds) > 1 else ''} {join_names(self.seeds)}"

    def runs(self, label: str, values: Mapping[str, Any], root: Path) -> list[PlannedRun]:
        """The runs of a trial, one for each seed.

        Raises:
            RequestError: the agent does not take these settings together.
        """
        return plan_runs(
            [Variant(label, self.agent, values)],
            [str(self.fixed["env"])],
            self.seeds,
            common=self.fixed,
            root=root,
            final_episodes=self.final_episodes,
            command=f"train {self.agent}",
        )


def carry_out(
    study: Study,
    plan: Plan,
    count: int,
    jobs: int,
    on_end: Callable[[], None],
    engine: Engine,
) -> None:
    """Works at trials until the study has enough of them, and those of this process have ended.

    Args:
        study: the study.
        plan: what its trials have in common.
        count: trials that it shall have, those of other processes and earlier calls included.
        jobs: number of trials at a time.
        on_end: called after each trial that has ended here.
        engine: where the runs are trained.

    Raises:
        RequestError: the folder cannot be written.
        Interruption: a signal asked to stop. The trials at work have then written checkpoints.
    """
    logs = make_logs_folder(study.root)
    steps_each = plan.total_steps * len(plan.seeds)
    with unfailing_output(), StopSignals() as stop, StudyView(count, steps_each) as view:
        tuning = Tuning(study, plan, count, jobs, logs, view, on_end, engine)
        tuning.run(stop.requested)
    if stop.signum is not None and not tuning.finished:
        interruption = Interruption(stop.signum)
        interruption.add_note(f"with {counts_text(study.trials)}: the same command goes on")
        raise interruption


@final
class Tuning:
    """The trials of this process; see :func:`carry_out`."""

    def __init__(
        self,
        study: Study,
        plan: Plan,
        count: int,
        jobs: int,
        logs: Path,
        view: StudyView,
        on_end: Callable[[], None],
        engine: Engine,
    ) -> None:
        self.engine = engine
        self.study, self.plan, self.count, self.jobs = study, plan, count, jobs
        self.logs, self.view, self.on_end = logs, view, on_end
        self.at_work: list[Work] = []
        self.finished = False
        self._last_view = time.monotonic()

    def run(self, stop_requested: Callable[[], bool]) -> None:
        """Works until this process is done, or until it is to stop and its children have."""
        try:
            while not self.finished and not stop_requested():
                self._take_some()
                self._go_on()
                self._show()
                if not self.finished:
                    time.sleep(SECONDS_BETWEEN_POLLS)
        finally:
            for work in self.at_work:
                work.leave()

    def _take_some(self) -> None:
        while len(self.at_work) < self.jobs:
            taken = self.study.take(self.count)
            if taken is None:
                self.finished = not self.at_work
                return
            number = taken.trial.number
            if taken.again:
                self.view.taken_up(number)
            self._begin(taken, number)

    def _begin(self, taken: Taken, number: int) -> None:
        """Starts on a trial; one whose settings do not go together has failed."""
        try:
            runs = self.plan.runs(f"trial {number}", taken.values, taken.folder)
        except RequestError as error:
            self.study.fail(taken, error.with_flags)
            self._tell_end(number)
        else:
            plan = self.plan
            pruning = None if plan.points is None else (RULES[plan.prune], plan.points)
            work = Work(self.study, taken, runs, pruning, self.logs, self.engine)
            self.at_work.append(work)

    def _go_on(self) -> None:
        for work in list(self.at_work):
            if work.advance():
                self.at_work.remove(work)
                self._tell_end(work.number)

    def _tell_end(self, number: int) -> None:
        self.view.ended(next(trial for trial in self.study.trials if trial.number == number))
        self.on_end()

    def _show(self) -> None:
        if self.finished or time.monotonic() - self._last_view > self.view.seconds_between:
            self._last_view = time.monotonic()
            steps = sum(work.steps for work in self.at_work)
            self.view.advance(self.study.trials, self.study.best, steps, finished=self.finished)
