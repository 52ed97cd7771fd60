"""``pgtoolkit train AGENT --env ENV``: trains an agent."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from pgtoolkit import parallel
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import (
    asks_for_help,
    field_names,
    parse_known,
    program_name,
    read_yaml,
    require_flags,
)
from pgtoolkit.scripts.cli.help.examples import EXAMPLES
from pgtoolkit.scripts.cli.help.tables import table, text_width
from pgtoolkit.scripts.cli.own_agents import short_name
from pgtoolkit.scripts.cli.presets import Preset, PresetChoice, find_preset
from pgtoolkit.scripts.cli.registry import AGENTS, load_agent, require_agent
from pgtoolkit.training.stop import Interruption

if TYPE_CHECKING:
    from pgtoolkit.rollouts.evaluation import Evaluation
    from pgtoolkit.scripts.cli.display.run_views import RunView
    from pgtoolkit.scripts.cli.experiment import Experiment, FindEnvironments, RunSettings
    from pgtoolkit.scripts.cli.help.help_text import Group
    from pgtoolkit.training.no_writer import NoWriter
    from pgtoolkit.training.progress import Progress, Watch
    from pgtoolkit.training.run_folder import RunFolder
    from pgtoolkit.training.stop import StopSignals
    from pgtoolkit.training.writer import RunWriter

LEFT_OUT = 0.01
"""Share of the planned steps from which on it is said that they were not trained."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What the command takes beside the settings of the run."""

    run_dir: str | None = None
    """The run's folder. Default: runs/ENV__AGENT__SEED__TIME."""
    config: str | None = None
    """YAML with any of the settings (a run's config.yaml is one); flags win over it. Code that it
    names, such as env: file.py:Class, is run: read it before."""
    preset: PresetChoice = "auto"
    """auto: start from the settings that this package has for the agent on this environment, if it
    has some, and print them; none: from the agent's defaults. Flags win over either; --config
    stands in the place of both."""
    quiet: bool = False
    """Print only errors and the last line: the run's folder and its return."""
    json_lines: bool = False
    """Print one JSON object on a line of standard output for each event (start, progress, end), and
    nothing else there."""


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
            f"name the agent first: pgtoolkit train AGENT --env ENV ({', '.join(AGENTS)}, or "
            "path/to/file.py:Class)"
        )
    agent_name = arguments[0]
    require_agent(agent_name)
    command = f"train {agent_name}"
    if asks_for_help(arguments):
        print(help_of(agent_name))
        return
    options, rest = parse_known(TrainArguments, arguments[1:], command=command)
    if options.config is None and not rest:
        raise RequestError(f"--env is missing (see {program_name(command)} --help)")
    # Imported only now, so that what is wrong so far is reported without waiting for torch.
    from pgtoolkit.scripts.cli import experiment
    from pgtoolkit.scripts.cli.display.run_views import view_of

    names = [*experiment.setting_names(agent_name), *field_names(TrainArguments)]
    require_flags(rest, names, command=command)
    view = view_of(quiet=options.quiet, json_lines=options.json_lines)
    preset = None
    if options.config is None:
        settings = experiment.parse_settings(agent_name, rest, command=command)
        preset = find_preset(options.preset, agent_name, settings.run.env)
        given = {} if preset is None else {"agent": agent_name, **preset.settings}
    else:
        given = read_yaml(Path(options.config))
        if experiment.absolute_path(given.setdefault("agent", agent_name)) != (
            experiment.absolute_path(agent_name)
        ):
            raise RequestError(f"{options.config} configures {given['agent']}, not {agent_name}")
    if given:
        settings = experiment.settings_from_file(given, rest, command=command)
    train_settings(settings, options.run_dir, preset=preset, view=view)


def train_settings(
    settings: "RunSettings",
    run_dir: str | None,
    *,
    preset: Preset | None = None,
    find_environments: "FindEnvironments | None" = None,
    watch: "Watch | None" = None,
    view: "RunView | None" = None,
) -> Trained:
    """Trains a new run with these settings.

    Args:
        settings: the run's.
        run_dir: its folder; None for one in ``runs/``, named after the settings.
        preset: where some of the settings come from, to tell it.
        find_environments: makes the environments, if not those that the settings name.
        watch: called with the progress after every update; it may stop the run.
        view: what is told of the run; sentences and progress for people by default.
    """
    from pgtoolkit.scripts.cli.display.following import view_here
    from pgtoolkit.scripts.cli.restart import goes_on, require_folder_to_restart
    from pgtoolkit.scripts.resume import ResumeArguments, resume_locked

    with parallel.processes():
        require_folder_to_restart(run_dir)
        if run_dir is not None and goes_on(run_dir, settings):
            again = ResumeArguments(run=run_dir)
            return resume_locked(again, find_environments=find_environments, watch=watch, view=view)
        view = view_here(view)
        with view.output():
            said = [] if preset is None else [preset.sentence]
            return train_shown(settings, run_dir, view, said, find_environments, watch)


def train_shown(
    settings: "RunSettings",
    run_dir: str | None,
    view: "RunView",
    said: Sequence[str],
    find_environments: "FindEnvironments | None" = None,
    watch: "Watch | None" = None,
) -> Trained:
    """Trains a new run, in the block of the view's output; ``said`` are the first sentences."""
    from pgtoolkit.scripts.cli.display.run_videos import require_filmable
    from pgtoolkit.scripts.cli.display.run_views import Beginning
    from pgtoolkit.scripts.cli.experiment import Experiment, default_settings
    from pgtoolkit.scripts.cli.gradient_check import warn_of_wrong_gradient
    from pgtoolkit.scripts.cli.tracking import tracker_of
    from pgtoolkit.scripts.cli.trust import signature
    from pgtoolkit.training.run_folder import RunFolder, default_path
    from pgtoolkit.training.storage.new_folder import new_folder, require_no_run
    from pgtoolkit.training.writer import RunWriter

    folder = None if run_dir is None else Path(run_dir)
    if folder is not None and parallel.rank() == 0:
        require_no_run(folder)  # before anything is built
    tracker = tracker_of(settings.loop)
    with untrained():
        experiment = Experiment(settings, find_environments=find_environments)
        require_filmable(experiment)
    names = experiment.source.name, short_name(settings.agent_name), settings.run.seed
    path = folder or parallel.exchange(default_path(*names), "folder of the run")[0]
    if parallel.rank() != 0:
        return follow(experiment, RunFolder(path), view, watch=watch)
    resolved = experiment.settings.as_dict()
    with new_folder(path):
        run_folder = RunFolder.create(path, experiment.config | signature(experiment.settings))
        view.begin(Beginning(run_folder, resolved, 0, [*said, *sentences_of(experiment)]))
        wrong = warn_of_wrong_gradient(experiment)
        with RunWriter(path, tracker=tracker) as writer:
            writer.begin(resolved, default_settings(settings.agent_name))
            end = run_training(
                experiment,
                run_folder,
                writer,
                progress=None,
                watch=watch,
                view=view,
                wrong_gradient=wrong,
            )
    return Trained(experiment, run_folder, end)


def follow(
    experiment: "Experiment",
    run_folder: "RunFolder",
    view: "RunView",
    *,
    progress: "Progress | None" = None,
    watch: "Watch | None" = None,
) -> Trained:
    """Trains as the first process of the run does, which writes the folder."""
    from pgtoolkit.training.no_writer import NoWriter

    with NoWriter() as writer:
        end = run_training(
            experiment, run_folder, writer, progress=progress, watch=watch, view=view
        )
    return Trained(experiment, run_folder, end)


def sentences_of(experiment: "Experiment") -> list[str]:
    """The observation's parts, the gradient's source, how to resume, and what a replay takes."""
    from pgtoolkit.agent import HasReplay
    from pgtoolkit.scripts.cli.observation_parts import parts_sentence

    agent, source = experiment.agent, experiment.environments.gradient.sentence
    parts = parts_sentence(
        experiment.source.observation_space, experiment.eval_env.single_observation_space
    )
    found = [x for x in (parts, source, experiment.resume_sentence) if x]
    found += experiment.processes_sentences
    return [*found, agent.replay_sentence] if isinstance(agent, HasReplay) else found


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
    writer: "RunWriter | NoWriter",
    *,
    progress: "Progress | None",
    view: "RunView",
    watch: "Watch | None" = None,
    wrong_gradient: str = "",
) -> "Progress":
    """Trains to the end, then reports the returns and the paths of the results.

    What was found wrong with the environment's gradient at the start is said again at the end,
    where the first lines of a long run are out of sight.

    A run that ``watch`` stopped has its checkpoint, and no summary.

    Raises:
        NonFiniteError: with a note that says from where to go on; other errors have it too.
        RunFileError: the run folder cannot be written.
        Interruption: a signal asked to stop; the run's state is saved.
    """
    from pgtoolkit.scripts.cli.display.run_videos import film_of
    from pgtoolkit.scripts.cli.display.run_views import Ending
    from pgtoolkit.scripts.cli.experiment import resuming
    from pgtoolkit.training.loop import train
    from pgtoolkit.training.progress import Progress, unwatched
    from pgtoolkit.training.stop import StopSignals
    from pgtoolkit.training.storage.disk import writing

    loop, begun = experiment.settings.loop, 0 if progress is None else progress.num_steps
    progress = progress or Progress()
    go_on = resuming(experiment.settings.run.env, run_folder.path)
    film = film_of(experiment, run_folder, writer, progress)
    try:
        with StopSignals() as stop:
            with view.follow(loop.total_steps, begun) as show:
                end = train(
                    experiment.agent,
                    loop,
                    run_folder,
                    writer,
                    evaluate=lambda: filmed_evaluation(experiment, stop, film),
                    show=show,
                    progress=progress,
                    stop_requested=stop.requested,
                    watch=watch or unwatched,
                )
            require_not_stopped(stop, end, loop.total_steps, go_on)
            writer.end()
            result, finished = summary(experiment, end), end.done(loop.total_steps)
            if finished and parallel.rank() == 0:
                with writing(run_folder.path):
                    run_folder.write_summary(result)
    except Interruption:
        raise
    except BaseException as error:
        error.add_note(last_checkpoint(run_folder, progress, go_on))
        raise
    said = [f"check:          at the start, {wrong_gradient}"] if wrong_gradient else []
    lines = said + closing_lines(run_folder, end, result["env"], loop.total_steps, go_on)
    view.end(Ending(run_folder, result, finished, lines))
    return end


def filmed_evaluation(
    experiment: "Experiment", stop: "StopSignals", film: "Callable[[], None]"
) -> "Evaluation":
    """An evaluation, and the film after it.

    Raises:
        EvaluationStopped: one of the processes was asked to stop.
    """
    found = experiment.evaluate(
        lambda: parallel.any_of(stop.requested(), purpose="stop in evaluation")[0]
    )
    film()
    return found


def require_not_stopped(stop: "StopSignals", end: "Progress", total_steps: int, go_on: str) -> None:
    """Asks whether the run has come to its end.

    Raises:
        Interruption: a signal to one of the processes has stopped it before.
    """
    signals = [x for x in parallel.exchange(stop.signum, "signal") if x is not None]
    if signals and not end.done(total_steps):
        raise stopped(signals[0], end, go_on)


def stopped(signum: int, progress: "Progress", go_on: str) -> Interruption:
    """The exception that ends the command after a signal, with where to go on."""
    error = Interruption(signum)
    error.add_note(go_on_sentence(progress, go_on))
    return error


def go_on_sentence(progress: "Progress", go_on: str) -> str:
    """The end of a sentence that begins with what ended the run: where, and how it goes on."""
    return f"at step {progress.num_steps}: go on with {go_on}"


def last_checkpoint(run_folder: "RunFolder", progress: "Progress", go_on: str) -> str:
    """Says from where a run that failed can go on, if it can."""
    if not (run_folder.resume_file.exists() and run_folder.config_file.exists()):
        return f"There is no run in {run_folder.path} that could go on."
    if progress.num_steps == 0:
        return f"Nothing was trained; with the cause mended, begin with {go_on}, or train anew"
    checkpoint = run_folder.resume_file
    return f"Last good checkpoint: {checkpoint}; with the cause mended, go on with {go_on}"


def summary(experiment: "Experiment", progress: "Progress") -> dict[str, Any]:
    """The content of ``summary.json``."""
    from pgtoolkit.training.diagnosis import gradient_text, nothing_text

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
        "gradient": gradient_text(progress.diagnosis),
        "diagnosis": [finding.as_dict() for finding in progress.diagnosis.findings_at_end],
        "without_findings": nothing_text(progress.diagnosis.history),
        "last": progress.scalars,
    }


def closing_lines(
    run_folder: "RunFolder", end: "Progress", env: str, total_steps: int, go_on: str
) -> list[str]:
    """The lines printed at the end; of a run that its watcher stopped, where it goes on."""
    if not end.done(total_steps):
        return [f"stopped {go_on_sentence(end, go_on)}"]
    return steps_lines(end, total_steps) + report_lines(run_folder, end, env)


def steps_lines(progress: "Progress", total_steps: int) -> list[str]:
    """Says how many of the steps were trained, if a part of a window was left out that counts."""
    if total_steps - progress.num_steps <= LEFT_OUT * total_steps:
        return []
    return [
        f"steps:          {progress.num_steps:,} of {total_steps:,}, in whole windows of "
        f"{progress.window_steps:,}"
    ]


def report_lines(run_folder: "RunFolder", progress: "Progress", env: str) -> list[str]:
    """The lines printed at the end: returns, gradient, diagnosis, policy file, next commands."""
    from pgtoolkit.envs.registry.resolve import OBJECT
    from pgtoolkit.training import diagnosis
    from pgtoolkit.training.dashboard import EVAL_SUCCESS

    policy = run_folder.saved_policy("best")
    # No command can make an environment again that was an object in Python.
    in_python = f"pgtoolkit.load({str(run_folder.path)!r}, env=...).evaluate()"
    evaluate = in_python if OBJECT.fullmatch(env) else f"pgtoolkit evaluate {run_folder.path}"
    lines = []
    if progress.eval_return is not None:
        lines.append(
            f"return:         {progress.eval_return:.1f} at the end, {progress.best_return:.1f} at "
            f"best ({evaluation_words(progress)})"
        )
    elif progress.mean_return is not None:
        lines.append(f"return:         {progress.mean_return:.1f} (last training episodes)")
    if EVAL_SUCCESS in progress.scalars:
        share = progress.scalars[EVAL_SUCCESS]
        lines.append(f"success:        {share:.0%} of the last evaluation's episodes (is_success)")
    if progress.mean_return is None:
        lines.append("training:       no whole episode has ended yet")
    lines += diagnosis.report_lines(progress.diagnosis)
    return [
        *lines,
        f"policy:         {policy}",
        f"evaluate it:    {evaluate}",
        f"TensorBoard:    tensorboard --logdir {run_folder.path}",
    ]


def evaluation_words(progress: "Progress") -> str:
    """What kind of evaluation it was, and the share of its episodes that were cut off."""
    from pgtoolkit.training.loop import CUT_OFF_TAG

    share = progress.scalars.get(CUT_OFF_TAG, 0.0)
    return "deterministic evaluation" + (f"; {share:.0%} of episodes cut off" if share else "")


def usage() -> str:
    """The help of ``train`` without an agent."""
    rows = {name: agent.note for name, agent in AGENTS.items()}
    return (
        f"example:\n  {EXAMPLES['train'].line.format(agent='shac')}\n\n"
        "usage: pgtoolkit train AGENT --env ENV [options]\n\n"
        f"agents:\n{table(rows, text_width())}\n\n"
        "AGENT can be an agent of your own, path/to/file.py:Class.\n"
        "`pgtoolkit train AGENT --help` shows all options of an agent."
    )


def option_groups(agent_name: str) -> "list[Group]":
    """All options of the command with an agent."""
    from pgtoolkit.scripts.cli.experiment import RunConfig
    from pgtoolkit.scripts.cli.help.help_text import Group
    from pgtoolkit.scripts.cli.help.options import options_of
    from pgtoolkit.training.loop import TrainConfig

    kinds = {
        "environment, seed and device": RunConfig,
        "training loop": TrainConfig,
        "files and output": TrainArguments,
        f"agent {agent_name}": load_agent(agent_name)[1],
    }
    return [Group(title, options_of(kind)) for title, kind in kinds.items()]


def help_of(agent_name: str) -> str:
    """The help of ``train`` with an agent."""
    from pgtoolkit.scripts.cli.help.help_text import help_text

    description = inspect.getdoc(load_agent(agent_name)[1]) or ""
    command = f"train {agent_name}"
    return help_text(command, program_name(command), description, option_groups(agent_name))


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
