"""``pgtoolkit explain RUN``: takes a fault of a run again and names where it began."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

import tyro

from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.files import require_writable, write_json

SECONDS = 10.0
"""Those that the episode of a failed environment may take when it is taken again."""

if TYPE_CHECKING:
    from pgtoolkit.envs.registry.resolve import EnvSpec
    from pgtoolkit.scripts.cli.experiment import Experiment
    from pgtoolkit.training.faults.explanation import Explanation
    from pgtoolkit.training.faults.flight_recorder import Flight
    from pgtoolkit.training.faults.flight_replay import Replay
    from pgtoolkit.training.run_folder import RunFolder


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainArguments:
    """Takes the windows before a fault again, bit for bit, and names where the fault began.

    A run that stops at a number that is not finite, at an environment that fails, at a spike of the
    gradient or at a collapse of the return leaves fault-*.json in its folder, with a recording.
    """

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    fault: str | None = None
    """Name of a fault's file in the folder. Default: the newest."""
    env: str | None = None
    """The environment, where the run's is to be named anew: an id, module:Id-v0 or
    path/to/file.py:Class, whose code is run. Default: the run's."""
    json: Path | None = None
    """File for the result, as JSON."""
    trust: bool = False
    """Run the code that the run's folder names (file.py:Class, module:Id) though it was not trained
    here by you."""


def run(arguments: Sequence[str]) -> None:
    """Loads a fault and its recording, takes the windows again, and reports.

    Raises:
        RequestError: there is no such run or fault, or its files cannot be read.
    """
    options = parse(ExplainArguments, arguments, command="explain")
    from pgtoolkit.training.faults.fault_file import read_fault, read_recording
    from pgtoolkit.training.run_folder import RunFolder

    folder, config = RunFolder.open(options.run)
    path = chosen_fault(folder, options.fault)
    fault = read_fault(path)
    if options.json is not None:
        require_writable(options.json, "--json")
    print(f"fault:    {path}")
    print(f"          {single_line(fault['message'])}")
    print(f"          (update {fault['num_updates'] + 1}, after {fault['num_steps']:,} steps)")
    found = explained(folder, config, fault, read_recording(path, fault), options)
    print("\n".join(report(found)))
    if options.json is not None:
        write_json(options.json, described(path, fault, found))


def chosen_fault(folder: "RunFolder", name: str | None) -> Path:
    """The named file of a fault, or the newest.

    Raises:
        RequestError: there is none.
    """
    from pgtoolkit.training.faults.fault_file import fault_files

    if name is not None:
        path = folder.path / Path(name).name
        if not path.is_file():
            raise RequestError(f"{path} does not exist: --fault names a file in the run's folder")
        return path
    files = fault_files(folder.path)
    if not files:
        raise RequestError(
            f"{folder.path} has no fault-*.json: no fault was recorded in this run. An error that "
            "says what to change in a setting or in the environment's interface is printed alone"
        )
    return files[-1]


def explained(
    folder: "RunFolder",
    config: dict[str, Any],
    fault: dict[str, Any],
    recording: Any,
    options: ExplainArguments,
) -> "Explanation":
    """Makes the experiment and takes the recorded windows again.

    Raises:
        RequestError: the environment cannot be made, or the recording does not fit.
    """
    from pgtoolkit.scripts.cli.experiment import absolute_path
    from pgtoolkit.scripts.cli.trust import OTHER_ENV, names_of, require_signed, settings_of_run

    settings = settings_of_run(config, command="explain", trust=options.trust)
    if options.env is not None:
        run = dataclasses.replace(settings.run, env=absolute_path(options.env))
        settings = dataclasses.replace(settings, run=run)
    if not options.trust:
        require_signed(config, names_of(settings.run) - names_of(options), OTHER_ENV)
    try:
        return taken_again(folder, settings, fault, recording)
    except RequestError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise RequestError(
            f"the recording does not fit the run ({type(error).__name__}: {single_line(error)}): "
            "one of the two was altered, or another version wrote it"
        ) from error


def taken_again(
    folder: "RunFolder", settings: Any, fault: dict[str, Any], recording: Any
) -> "Explanation":
    """The explanation of a fault, from its recording or else from the last checkpoint."""
    from pgtoolkit.training.faults.explanation import explain
    from pgtoolkit.training.faults.flight_replay import read_flights

    at_fault = None if recording is None else recording.get("at_fault")
    flights = (
        flights_from_checkpoint(folder, fault) if recording is None else read_flights(recording)
    )
    experiment, replay = experiment_for(settings, flights)
    replay.replay = None if recording is None else recording.get("replay")
    found = explain(replay, flights, fault, at_fault)
    notes = list(found.notes)
    if recording is None:
        notes.append("the state was too large to be recorded: the replay began at the checkpoint")
    if replay.player is not None:
        notes.append(
            "the environments themselves were not stepped: what they returned was recorded"
        )
    if fault.get("where") == "evaluation":
        if at_fault is not None:
            replay.restore(at_fault, None)
        found = evaluated(experiment, found, fault)
    notes += replayed_episode(experiment, fault)
    return dataclasses.replace(found, notes=tuple(notes))


def experiment_for(settings: Any, flights: "Sequence[Flight]") -> "tuple[Experiment, Replay]":
    """The experiment, with a stand-in for ordinary environments whose steps were recorded."""
    from pgtoolkit.rollouts.tape import TapePlayer
    from pgtoolkit.scripts.cli.experiment import Experiment
    from pgtoolkit.training.faults.flight_replay import Replay

    players: list[TapePlayer] = []

    def stand_in(env: Any) -> Any:
        rollout = flights[0].rollout
        if rollout is None:
            return env
        players.append(TapePlayer(env, rollout["obs"].numpy()))
        return players[0]

    experiment = Experiment(settings, stand_in)
    return experiment, Replay(experiment.agent, players[0] if players else None)


def flights_from_checkpoint(folder: "RunFolder", fault: dict[str, Any]) -> "list[Flight]":
    """Flights from the last checkpoint up to the fault, without recorded noise and steps.

    Raises:
        RequestError: the checkpoint is newer than the fault, or too far before it.
    """
    from pgtoolkit.training.faults.flight_recorder import Flight
    from pgtoolkit.training.faults.flight_replay import WINDOWS

    state, _ = folder.read_resume()
    first = int(state["progress"]["num_updates"])
    count = fault["num_updates"] - first + 1
    if not 1 <= count <= WINDOWS:
        raise RequestError(
            f"this fault has no recording, and the checkpoint is of update {first}: only a fault "
            f"at most {WINDOWS:,} updates after it can be taken again"
        )
    steps = int(state["progress"]["num_steps"])
    flights = [Flight(steps, first, state["agent"], None, [], [])]
    return flights + [Flight(steps, first + i, None, None, [], []) for i in range(1, count)]


def evaluated(
    experiment: "Experiment", found: "Explanation", fault: dict[str, Any]
) -> "Explanation":
    """Takes an evaluation again that failed, with the policy of that moment."""
    from pgtoolkit.training.faults.explanation import Address

    try:
        evaluation = experiment.evaluate()
    except Exception as error:
        same = (type(error).__name__, str(error)) == (fault.get("type"), fault["message"])
        address = found.address or Address(
            str(getattr(error, "tensor", fault.get("tensor") or "environment")),
            f"in an evaluation: {single_line(error)}",
            None,
            getattr(error, "step", None),
            getattr(error, "env_index", fault.get("env_index")),
            fault["num_updates"],
        )
        words = f"the evaluation, taken again, ends with {type(error).__name__}: {error}"
        return dataclasses.replace(found, address=address, repeated=same, replay=words)
    words = f"the evaluation, taken again, ends well (mean return {evaluation.mean_return:.4g})"
    return dataclasses.replace(found, repeated=False, replay=words)


def replayed_episode(experiment: "Experiment", fault: dict[str, Any]) -> list[str]:
    """Whether the episode of an environment that failed fails again in a fresh environment."""
    replay = fault.get("replay")
    if not isinstance(replay, dict) or not isinstance(replay.get("actions"), list):
        return []
    start = replay.get("start")
    start = start if isinstance(start, dict) else {"seed": fault.get("seed")}
    seed, generator = start.get("seed"), start.get("generator")
    if not isinstance(seed, int) and not isinstance(generator, dict):
        return ["the start of the episode is not known, so it is not taken again"]
    from pgtoolkit.apart import call_apart

    # It may end its process, or block it, as it may have done in the run.
    again = call_apart(lambda: episode_again(experiment.source, start, replay["actions"]), SECONDS)
    return [again.text or f"a fresh environment fails again: {again.end}"]


def episode_again(source: "EnvSpec", start: dict[str, Any], actions: list[Any]) -> str:
    """Takes an episode again in a fresh environment, and says how it ends."""
    import numpy as np

    done = 0
    try:
        env = source.make_guarded()
        if start.get("seed") is None:
            env.unwrapped.np_random.bit_generator.state = start["generator"]
        env.reset(seed=start.get("seed"))
        for done, action in enumerate(actions, 1):
            obs, reward, *_ = env.step(np.asarray(action, env.action_space.dtype))
            if not math.isfinite(float(reward)) or not np.isfinite(obs).all():
                number = f"the reward {float(reward):.4g}, the observation {single_line(obs)}"
                return f"a fresh environment returns {number} at step {done} of the episode too"
    except Exception as error:
        return f"a fresh environment fails again at step {done}: {single_line(error)}"
    return "a fresh environment takes the same actions from the same start without failing"


def report(found: "Explanation") -> list[str]:
    """The lines that are printed."""
    sure = "bit for bit" if found.repeated else "it does not repeat"
    lines = [f"replay:   {found.replay} ({sure})"]
    if found.address is None:
        lines.append("began:    nothing bad was found in the windows that were taken again")
    else:
        lines.append(f"began:    {found.address.sentence}")
    return lines + [f"note:     {note}" for note in found.notes]


def described(path: Path, fault: dict[str, Any], found: "Explanation") -> dict[str, Any]:
    """The content of ``--json``."""
    return {
        "fault": str(path),
        "kind": fault.get("kind"),
        "message": fault["message"],
        "repeated": found.repeated,
        "replay": found.replay,
        "began": None if found.address is None else dataclasses.asdict(found.address),
        "notes": list(found.notes),
    }


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
