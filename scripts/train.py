"""``pgtoolkit train AGENT --env ENV``: trains an agent."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import read_yaml
from pgtoolkit.scripts.cli.registry import AGENTS, find_agent
from pgtoolkit.training.stop import Interruption

if TYPE_CHECKING:
    from pgtoolkit.rollouts.evaluation import Evaluation
    from pgtoolkit.scripts.cli.experiment import Experiment, FindEnvironments, RunSettings
    from pgtoolkit.training.progress import Progress, Watch
    from pgtoolkit.training.run_folder import RunFolder
    from pgtoolkit.training.writer import RunWriter


@final
class Trained(NamedTuple):
    """A run that has ended: finished, or stopped by the function that watched it."""

    experiment: "Experiment"
    folder: "RunFolder"
    progress: "Progress"


def run(arguments: Sequence[str]) -> None:
    """Parses the settings, builds the experiment, trains, and reports.

    Raises:
        RequestError: the request is wrong.
        NonFiniteError: a number went bad; its notes name the last good checkpoint.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage())
        return
    if not arguments or arguments[0].startswith("-"):
        raise RequestError(
            f"name the agent first: pgtoolkit train AGENT --env ENV ({', '.join(AGENTS)})"
        )
    agent_name = arguments[0]
    find_agent(agent_name)
    rest, run_dir = take_option(list(arguments[1:]), "--run-dir")
    rest, config_file = take_option(rest, "--config")
    if "-h" in rest or "--help" in rest:
        print(EXTRA_HELP)
    # Imported only now, so that a wrong agent name is reported without waiting for torch.
    from pgtoolkit.scripts.cli import experiment

    command = f"train {agent_name}"
    if config_file is None:
        settings = experiment.parse_settings(agent_name, rest, command=command)
    else:
        given = read_yaml(Path(config_file))
        if given.setdefault("agent", agent_name) != agent_name:
            raise RequestError(f"{config_file} configures {given['agent']}, not {agent_name}")
        settings = experiment.settings_from_file(given, rest, command=command)
    train_settings(settings, run_dir)


def train_settings(
    settings: "RunSettings",
    run_dir: str | None,
    *,
    find_environments: "FindEnvironments | None" = None,
    watch: "Watch | None" = None,
) -> Trained:
    """Trains a new run with these settings.

    Args:
        settings: the run's.
        run_dir: its folder; None for one in ``runs/``, named after the settings.
        find_environments: makes the environments, if not those that the settings name.
        watch: called with the progress after every update; it may stop the run.
    """
    from pgtoolkit.agent import HasReplay
    from pgtoolkit.scripts.cli.experiment import Experiment, default_settings
    from pgtoolkit.scripts.cli.run_videos import require_filmable
    from pgtoolkit.scripts.cli.streams import unfailing_output
    from pgtoolkit.scripts.cli.trust import signature
    from pgtoolkit.training.run_folder import RunFolder, default_path
    from pgtoolkit.training.storage.new_folder import new_folder, require_no_run
    from pgtoolkit.training.writer import RunWriter

    folder = None if run_dir is None else Path(run_dir)
    if folder is not None:
        require_no_run(folder)  # before anything is built
    with untrained():
        experiment = Experiment(settings, find_environments=find_environments)
        require_filmable(experiment)
    path = folder or default_path(experiment.source.name, settings.agent_name, settings.run.seed)
    resolved = experiment.settings.as_dict()
    with unfailing_output(), new_folder(path):
        run_folder = RunFolder.create(path, resolved | signature(experiment.settings.run))
        print(f"run: {path}", flush=True)
        if experiment.environments.gradient.sentence:
            print(experiment.environments.gradient.sentence, flush=True)
        print(experiment.resume_sentence, flush=True)
        if isinstance(experiment.agent, HasReplay):
            print(experiment.agent.replay_sentence, flush=True)
        with RunWriter(path) as writer:
            writer.begin(resolved, default_settings(settings.agent_name))
            end = run_training(experiment, run_folder, writer, progress=None, watch=watch)
    return Trained(experiment, run_folder, end)


@contextlib.contextmanager
def untrained() -> Iterator[None]:
    """A block in which nothing is trained yet; an interruption of it says so."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note("before the first update: nothing was trained")
        raise


def run_training(
    experiment: "Experiment",
    run_folder: "RunFolder",
    writer: "RunWriter",
    *,
    progress: "Progress | None",
    watch: "Watch | None" = None,
) -> "Progress":
    """Trains to the end, then reports the returns and the paths of the results.

    A run that ``watch`` stopped has its checkpoint, and no summary.

    Raises:
        NonFiniteError: with a note that names the last good checkpoint; other errors have it too.
        RunFileError: the run folder cannot be written.
        Interruption: a signal asked to stop; the run's state is saved.
    """
    from pgtoolkit.scripts.cli.progress import ProgressView
    from pgtoolkit.scripts.cli.run_videos import film_of
    from pgtoolkit.training.loop import train
    from pgtoolkit.training.progress import Progress, unwatched
    from pgtoolkit.training.stop import StopSignals
    from pgtoolkit.training.storage.disk import writing

    loop = experiment.settings.loop
    progress = progress or Progress()
    film = film_of(experiment, run_folder, writer, progress)

    def evaluate() -> "Evaluation":
        found = experiment.evaluate(stop.requested)
        film()
        return found

    try:
        with StopSignals() as stop:
            with ProgressView(loop.total_steps) as view:
                end = train(
                    experiment.agent,
                    loop,
                    run_folder,
                    writer,
                    evaluate=evaluate,
                    show=view,
                    progress=progress,
                    stop_requested=stop.requested,
                    watch=watch or unwatched,
                )
            if stop.signum is not None and not end.done(loop.total_steps):
                raise stopped(stop.signum, end, run_folder)
            writer.end()
            if not end.done(loop.total_steps):
                print(f"stopped {go_on_sentence(end, run_folder)}", flush=True)
                return end
            with writing(run_folder.path):
                run_folder.write_summary(summary(experiment, end))
    except Interruption:
        raise
    except BaseException as error:
        error.add_note(last_checkpoint(run_folder))
        raise
    print(report(run_folder, end))
    return end


def stopped(signum: int, progress: "Progress", run_folder: "RunFolder") -> Interruption:
    """The exception that ends the command after a signal, with where to go on."""
    error = Interruption(signum)
    error.add_note(go_on_sentence(progress, run_folder))
    return error


def go_on_sentence(progress: "Progress", run_folder: "RunFolder") -> str:
    """The end of a sentence that begins with what ended the run: where, and how it goes on."""
    return f"at step {progress.num_steps}: go on with `pgtoolkit resume {run_folder.path}`"


def last_checkpoint(run_folder: "RunFolder") -> str:
    """Says from where a run that failed can go on, if it can."""
    if not (run_folder.resume_file.exists() and run_folder.config_file.exists()):
        return f"There is no run in {run_folder.path} that could go on."
    return (
        f"Last good checkpoint: {run_folder.resume_file}; with the cause mended, go on with "
        f"`pgtoolkit resume {run_folder.path}`"
    )


def summary(experiment: "Experiment", progress: "Progress") -> dict[str, Any]:
    """The content of ``summary.json``."""
    return {
        "agent": experiment.settings.agent_name,
        "env": experiment.settings.run.env,
        "seed": experiment.settings.run.seed,
        "steps": progress.num_steps,
        "updates": progress.num_updates,
        "cpu_seconds": progress.cpu_seconds,
        "training_return": progress.mean_return,
        "eval_return": progress.eval_return,
        "best_eval_return": progress.best_return,
        "diagnosis": [finding.as_dict() for finding in progress.diagnosis.findings_at_end],
        "last": progress.scalars,
    }


def report(run_folder: "RunFolder", progress: "Progress") -> str:
    """The lines printed at the end: returns, gradient, diagnosis, policy file, next commands."""
    from pgtoolkit.scripts.cli.progress import NO_EPISODE
    from pgtoolkit.training.diagnosis import report_lines

    policy = run_folder.saved_policy("best")
    lines = []
    if progress.eval_return is not None:
        lines.append(
            f"learned return: {progress.eval_return:.1f} at the end, {progress.best_return:.1f} at "
            f"best ({evaluation_words(progress)})"
        )
    elif progress.mean_return is not None:
        lines.append(f"learned return: {progress.mean_return:.1f} (last training episodes)")
    if progress.mean_return is None:
        lines.append(f"training:       {NO_EPISODE}")
    lines += report_lines(progress.diagnosis)
    lines += [
        f"policy:         {policy}",
        f"evaluate it:    pgtoolkit evaluate {run_folder.path}",
        f"TensorBoard:    tensorboard --logdir {run_folder.path}",
    ]
    return "\n".join(lines)


def evaluation_words(progress: "Progress") -> str:
    """What kind of evaluation it was, and the share of its episodes that were cut off."""
    from pgtoolkit.training.loop import CUT_OFF_TAG

    share = progress.scalars.get(CUT_OFF_TAG, 0.0)
    return "deterministic evaluation" + (f"; {share:.0%} of episodes cut off" if share else "")


def take_option(arguments: list[str], flag: str) -> tuple[list[str], str | None]:
    """Removes ``flag VALUE`` or ``flag=VALUE`` from the arguments and returns the value.

    Raises:
        RequestError: the flag has no value.
    """
    for i, argument in enumerate(arguments):
        if argument == flag:
            if i + 1 == len(arguments):
                raise RequestError(f"{flag} needs a value")
            return arguments[:i] + arguments[i + 2 :], arguments[i + 1]
        if argument.startswith(f"{flag}="):
            return arguments[:i] + arguments[i + 1 :], argument.removeprefix(f"{flag}=")
    return arguments, None


EXTRA_HELP = """\
Beside the options below:
  --run-dir DIR      the run's folder (default: runs/ENV__AGENT__SEED__TIME)
  --config FILE      YAML with any of the options (a run's config.yaml is one); flags win over it.
                     Code that it names, such as env: file.py:Class, is run: read it before
"""


def usage() -> str:
    rows = "\n".join(f"  {name:<10} {agent.note}" for name, agent in AGENTS.items())
    return (
        "usage: pgtoolkit train AGENT --env ENV [options]\n\n"
        f"agents:\n{rows}\n\n`pgtoolkit train AGENT --help` shows all options of an agent."
    )


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
