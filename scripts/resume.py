"""``pgtoolkit resume RUN``: continues a stopped run, or extends a finished one."""

import contextlib
import dataclasses
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

import tyro

from pgtoolkit import parallel
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse

if TYPE_CHECKING:
    from pgtoolkit.scripts.cli.display.run_views import RunView
    from pgtoolkit.scripts.cli.experiment import FindEnvironments, RunSettings
    from pgtoolkit.scripts.train import Trained
    from pgtoolkit.training.progress import Progress, Watch
    from pgtoolkit.training.run_folder import RunFolder

LOG = logging.getLogger("pgtoolkit")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResumeArguments:
    """Continues a run from its last checkpoint.

    The result equals that of a run that never stopped, bit for bit, on differentiable environments
    and on those whose state can be saved or whose episodes can be taken again. Other environments
    start new episodes. The run says at its start which of these it is, and here what was done.
    """

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    total_steps: int | None = None
    """New total of environment steps; the learning-rate schedule then ends there."""
    track: Literal["none", "wandb", "trackio", "mlflow"] | None = None
    """Tracker that gets every scalar from now on; default: the run's, in the same tracked run."""
    capture_video: bool = False
    """Write a video at each evaluation from here on, as `pgtoolkit train --capture-video` does. A
    run that was started with it goes on with it."""
    trust: bool = False
    """Run the code that the run's folder names (file.py:Class, module:Id) though it was not trained
    here by you. The folder counts as yours from then on."""
    quiet: bool = False
    """Print only errors and the last line: the run's folder and its return."""
    json_lines: bool = False
    """Print one JSON object on a line of standard output for each event (start, progress, end), and
    nothing else there."""


def run(arguments: Sequence[str]) -> None:
    """Loads the run and continues its training.

    Raises:
        RequestError: there is no such run, it is finished, or another process writes it.
        NonFiniteError: a number went bad.
        RunFileError: the run folder cannot be written.
    """
    from pgtoolkit.scripts.cli.display.run_views import view_of

    options = parse(ResumeArguments, arguments, command="resume")
    resume_locked(options, view=view_of(quiet=options.quiet, json_lines=options.json_lines))


def resume_locked(
    options: ResumeArguments,
    *,
    find_environments: "FindEnvironments | None" = None,
    watch: "Watch | None" = None,
    view: "RunView | None" = None,
) -> "Trained":
    """Locks the run's folder and continues the run.

    Args:
        options: the command's.
        find_environments: makes the environments, if not those that the folder names.
        watch: called with the progress after every update; it may stop the run.
        view: what is told of the run; sentences and progress for people by default.
    """
    from pgtoolkit.scripts.cli.display.following import view_here
    from pgtoolkit.training.run_folder import RunFolder
    from pgtoolkit.training.storage.lock import locked
    from pgtoolkit.training.storage.new_folder import require_begun

    with parallel.processes(), contextlib.ExitStack() as stack:
        here = view_here(view)
        if parallel.rank() == 0:
            folder, _ = RunFolder.open(options.run)
            require_begun(folder.path)
        stack.enter_context(here.output())
        if parallel.rank() == 0:
            stack.enter_context(locked(folder.path))
        return resume(options, here, find_environments, watch)


def resume(
    options: ResumeArguments,
    view: "RunView",
    find_environments: "FindEnvironments | None" = None,
    watch: "Watch | None" = None,
) -> "Trained":
    """Continues a run whose folder is locked."""
    from pgtoolkit.scripts.cli.display.run_videos import require_filmable
    from pgtoolkit.scripts.cli.display.run_views import Beginning
    from pgtoolkit.scripts.cli.experiment import Experiment, default_settings, fitting
    from pgtoolkit.scripts.cli.tracking import tracker_of
    from pgtoolkit.scripts.train import Trained, follow, run_training, untrained
    from pgtoolkit.state import anything, at, entries, require
    from pgtoolkit.training.progress import Progress, require_agreement
    from pgtoolkit.training.storage.disk import writing
    from pgtoolkit.training.writer import RunWriter

    # Read by one process, because it changes the files that the others would read.
    folder, config, settings, state, resume_file = parallel.from_process(
        0, lambda: read_run(options), "run to resume"
    )
    progress = Progress()
    misfit = f"{resume_file} does not fit {folder.config_file}: was that edited?"
    with fitting(misfit):
        require(state, entries({"agent": anything, "progress": anything}))
        with at("progress"):
            progress.load_state_dict(state["progress"])
    require_unfinished(folder, progress, settings.loop.total_steps)
    tracker = tracker_of(settings.loop)
    with untrained():
        experiment = Experiment(settings, find_environments=find_environments)
        require_filmable(experiment)
    with fitting(misfit):
        with at("agent"):
            experiment.agent.load_state_dict(state["agent"])
        require_agreement(progress, experiment.agent)
    known = progress.best_return
    progress.best_return = parallel.from_process(0, lambda: best_return(folder, known), "best")
    if parallel.rank() != 0:
        return follow(experiment, folder, view, progress=progress, watch=watch)
    with writing(folder.path):
        folder.go_on_from(resume_file)
        given = (options.total_steps, options.trust, options.track, options.capture_video)
        if given != (None, False, None, False):
            folder.write_config(config)
    resolved = settings.as_dict()
    view.begin(Beginning(folder, resolved, progress.num_steps, [experiment.resumed_sentence]))
    # Events that were logged after the checkpoint are void; purge_step hides them in TensorBoard.
    with RunWriter(folder.path, progress.purge_step, tracker) as writer:
        writer.begin(resolved, default_settings(settings.agent_name))
        end = run_training(experiment, folder, writer, progress=progress, watch=watch, view=view)
    return Trained(experiment, folder, end)


def require_unfinished(folder: "RunFolder", progress: "Progress", total_steps: int) -> None:
    """Checks that there is something left to train.

    A run that was killed between its last checkpoint and its summary still lacks the latter.

    Raises:
        RequestError: it is finished.
    """
    if progress.done(total_steps) and folder.summary_file.exists():
        raise RequestError(
            f"{folder.path} is finished, at {progress.num_steps} steps: lengthen it by one window "
            f"or more, with --total-steps {progress.num_steps + progress.window_steps} or above"
        )


def read_run(
    options: ResumeArguments,
) -> "tuple[RunFolder, dict[str, Any], RunSettings, dict[str, Any], Path]":
    """A run's folder, its configuration with its settings, and its state with the state's file.

    Raises:
        RequestError: they cannot be read, or the configuration names code that is not signed.
    """
    from pgtoolkit.training.run_folder import RunFolder

    folder, config = RunFolder.open(options.run)
    config, settings = settings_to_resume(options, config)
    return folder, config, settings, *folder.read_resume()


def settings_to_resume(
    options: ResumeArguments, config: dict[str, Any]
) -> "tuple[dict[str, Any], RunSettings]":
    """The configuration of a run that goes on, with its new total and signature, and its settings.

    Raises:
        RequestError: the configuration does not fit, or names code that is not signed.
    """
    from pgtoolkit.scripts.cli.trust import (
        SIGNATURE,
        names_of,
        require_signed,
        settings_of_run,
        signature,
    )

    if options.total_steps is not None:
        config = config | {"total_steps": options.total_steps}
    if options.track is not None:
        config = config | {"track": options.track}
    if options.capture_video:
        config = config | {"capture_video": True}
    settings = settings_of_run(config, command="resume", trust=options.trust)
    if not options.trust:
        require_signed(config, names_of(settings.run))
        return config, settings
    unsigned = {name: value for name, value in config.items() if name != SIGNATURE}
    return unsigned | signature(settings), settings


def best_return(folder: "RunFolder", known: float | None) -> float | None:
    """The return of the best policy in a folder; None if a new best one should be written.

    The file is newer than the resume file if the run was killed between writing the two.

    Args:
        folder: the run's folder.
        known: the best return according to the resume file.
    """
    from pgtoolkit.training.checkpoint import CheckpointError, load_checkpoint

    path = folder.policy_file("best")
    if not os.path.lexists(path):
        return known
    try:
        found = load_checkpoint(path, inside=folder.path).get("eval_return")
    except CheckpointError as error:
        LOG.warning("%s; the next evaluation writes a new one", error.problem)
        return None
    if not isinstance(found, float) or not math.isfinite(found):
        return known
    return found if known is None else max(found, known)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
