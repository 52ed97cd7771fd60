"""``pgtoolkit resume RUN``: continues a stopped run, or extends a finished one."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, final

import tyro

from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.scripts.cli.arguments import parse


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


def run(arguments: Sequence[str]) -> None:
    """Loads the run and continues its training.

    Raises:
        RequestError: there is no such run, or it is finished.
        NonFiniteError: a number went bad.
    """
    options = parse(ResumeArguments, arguments, command="resume")
    from pgtoolkit.scripts.cli.experiment import Experiment, settings_from_file
    from pgtoolkit.scripts.train import run_training
    from pgtoolkit.training.checkpoint import load_checkpoint
    from pgtoolkit.training.progress import Progress
    from pgtoolkit.training.run_folder import RunFolder
    from pgtoolkit.training.writer import RunWriter

    folder, config = RunFolder.open(Path(options.run))
    if options.total_steps is not None:
        config["total_steps"] = options.total_steps
    settings = settings_from_file(config, [], command="resume")
    state = load_checkpoint(folder.resume_file)
    progress = Progress()
    progress.load_state_dict(state["progress"])
    if progress.finished(settings.loop.total_steps):
        raise RequestError(
            f"{options.run} is finished, at {progress.num_steps} steps: lengthen it with "
            f"--total-steps {2 * progress.num_steps}"
        )
    experiment = Experiment(settings)
    try:
        experiment.agent.load_state_dict(state["agent"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise RequestError(
            f"{folder.resume_file} does not fit {folder.config_file}: was that edited? "
            f"({single_line(error)})"
        ) from error
    if folder.policy_file("best").exists():
        # It is newer than the resume file if the run was killed between writing the two.
        best = load_checkpoint(folder.policy_file("best"))["eval_return"]
        progress.best_return = max(best, progress.best_return or best)
    if options.total_steps is not None:
        folder.write_config(config)
    print(f"run: {folder.path}, from step {progress.num_steps}", flush=True)
    print(experiment.resumed_sentence, flush=True)
    # Events that were logged after the checkpoint are void; purge_step hides them in TensorBoard.
    with RunWriter(folder.path, purge_step=progress.num_steps + 1) as writer:
        writer.begin(settings.as_dict())
        run_training(experiment, folder, writer, progress=progress)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
