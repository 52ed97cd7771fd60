"""Carries out the runs of a comparison: shows progress, stops at a signal, tells of failures."""

from collections.abc import Sequence
from pathlib import Path

from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.scripts.cli.streams import flush, report, unfailing_output
from pgtoolkit.scripts.comparison.logs import make_logs_folder
from pgtoolkit.scripts.comparison.plan import PlannedRun
from pgtoolkit.scripts.comparison.schedule import Schedule
from pgtoolkit.scripts.comparison.view import ComparisonView
from pgtoolkit.scripts.engines.base import Engine
from pgtoolkit.scripts.engines.local import LocalEngine
from pgtoolkit.training.stop import Interruption, StopSignals

SHOWN_FAILURES = 3


def carry_out(
    runs: Sequence[PlannedRun], jobs: int | None, root: Path, engine: Engine | None = None
) -> Schedule:
    """Makes the runs that are not complete; returns which are complete and which failed.

    Args:
        runs: what is to be run.
        jobs: number of processes at a time; None for as many as the engine has places for.
        root: the folder of the run folders; ``root/logs`` gets the output of the processes.
        engine: where they run; by default on this machine.

    Raises:
        RequestError: the folder cannot be written.
        Interruption: a signal asked to stop. The runs have then written checkpoints.
    """
    logs, engine = make_logs_folder(root), engine or LocalEngine()
    jobs = jobs or engine.places(len(runs))
    with unfailing_output(), StopSignals() as stop, ComparisonView(runs) as view:
        view.begin(jobs)
        schedule = Schedule(runs, jobs, logs, view, engine)
        schedule.run(stop.requested)
    if stop.signum is not None and schedule.unfinished:
        interruption = Interruption(stop.signum)
        interruption.add_note(
            f"with {len(schedule.complete)} of {len(runs)} runs complete: the same command goes on"
        )
        raise interruption
    return schedule


def report_failures(schedule: Schedule) -> None:
    """Says which runs failed.

    Raises:
        SystemExit: with 1, if there is one.
    """
    if not schedule.failed:
        return
    flush()
    titles = [run.title for run in schedule.failed]
    more = f" and {len(titles) - SHOWN_FAILURES} more" if len(titles) > SHOWN_FAILURES else ""
    total = len(schedule.failed) + len(schedule.complete)
    report(
        f"error: {len(titles)} of {total} runs failed: {join_names(titles[:SHOWN_FAILURES])}"
        f"{more}. Their output is in {schedule.logs}; the same command tries them again"
    )
    raise SystemExit(1)
