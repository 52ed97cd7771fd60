"""Runs that are killed at random and resumed, against runs that were left alone."""

import dataclasses
import random
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.reliability.forked_training import ForkedTraining
from pgtoolkit.scripts.reliability.run_comparison import differences
from pgtoolkit.training.checkpoint import load_checkpoint
from pgtoolkit.training.run_folder import RunFolder
from pgtoolkit.training.storage.new_folder import never_began

NUM_ENVS, N_STEPS = 4, 8

EARLY_SHARE = 0.2
"""Share of the kills whose time is counted from the start of the process and not of training."""

EARLY_SECONDS, LATER_SECONDS, SLOW_SECONDS = 1.5, 0.4, 0.02
"""Longest wait before an early kill, longest wait before another one, and the delay of a write."""

START_SECONDS = 120.0
"""Time in which a training must have finished an update."""


@final
@dataclasses.dataclass(frozen=True)
class KilledRunSettings:
    """What is trained, and how it is killed."""

    agent: str
    env: str
    flags: str
    """Further flags of ``pgtoolkit train``, as on a command line."""
    updates: int
    """Updates of one run."""
    kills: int
    """Kills in all; one run after the other until there were so many."""
    seed: int

    def arguments(self, folder: Path, seed: int) -> list[str]:
        """The command line of a run that saves a checkpoint at every update."""
        steps = NUM_ENVS * N_STEPS
        sizes = ["--num-envs", f"{NUM_ENVS}", "--n-steps", f"{N_STEPS}", "--hidden", "8"]
        intervals = ["--eval-interval", f"{7 * steps}", "--eval-episodes", "2"]
        intervals += ["--checkpoint-interval", "1", "--diagnostics-interval", "3"]
        whole = ["--total-steps", f"{self.updates * steps}", "--seed", f"{seed}"]
        where = ["--env", self.env, "--run-dir", str(folder)]
        return ["train", self.agent, *where, *sizes, *intervals, *whole, *shlex.split(self.flags)]


@final
@dataclasses.dataclass
class KilledRunResult:
    """Counts of what happened, and violations in words."""

    kills: int = 0
    slowed: int = 0
    """Kills of a process whose writes were slowed."""
    before_the_first_checkpoint: int = 0
    unfinished_files: int = 0
    """Kills that left a file half-written, under its temporary name."""
    runs: int = 0
    """Runs that were resumed to their end and compared."""
    violations: list[str] = dataclasses.field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def study(settings: KilledRunSettings, folder: Path, say: Callable[[str], None]) -> KilledRunResult:
    """Kills and resumes runs until there were ``settings.kills`` kills, and compares each run.

    Args:
        settings: what is trained, and how it is killed.
        folder: a folder for the runs; each pair is removed once it was found equal.
        say: takes a line after every run.
    """
    result, draw = KilledRunResult(), random.Random(settings.seed)
    while result.kills < settings.kills and not result.violations:
        seed = settings.seed + result.runs
        killed, whole = folder / f"killed-{seed}", folder / f"whole-{seed}"
        kill_and_resume(settings, killed, seed, draw, result)
        if not result.violations:
            result.violations += _run_to_the_end(settings.arguments(whole, seed), folder)
            result.violations += [f"seed {seed}: {x}" for x in differences(whole, killed)]
        result.runs += 1
        say(f"{result.kills} kills in {result.runs} runs, {len(result.violations)} violations")
        if not result.violations:
            shutil.rmtree(killed)
            shutil.rmtree(whole)
    return result


def kill_and_resume(
    settings: KilledRunSettings,
    path: Path,
    seed: int,
    draw: random.Random,
    result: KilledRunResult,
) -> None:
    """One run, killed again and again until it is finished or there were enough kills."""
    output, summary = path.with_suffix(".txt"), RunFolder(path).summary_file
    # A run with a summary is finished: it was killed on its way out.
    while result.kills < settings.kills and not result.violations and not summary.exists():
        slow = SLOW_SECONDS if draw.random() < 1 / 2 else 0.0
        training = ForkedTraining(_command(settings, path, seed), output, slow)
        code = _wait_for_the_moment(training, draw)
        if code is not None:
            if code:
                said = output.read_text(encoding="utf-8", errors="replace")[-500:]
                result.violations.append(f"exit code {code}: {said}")
            return
        done = training.num_updates
        training.kill()
        result.kills += 1
        result.slowed += slow > 0
        _inspect(path, done, result)
    if not summary.exists():
        result.violations += _run_to_the_end(_command(settings, path, seed), path.parent)


def _command(settings: KilledRunSettings, path: Path, seed: int) -> list[str]:
    """Resumes a run that has a checkpoint; trains anew where there is none."""
    begun = RunFolder(path).config_file.exists() and not never_began(path)
    return ["resume", str(path)] if begun else settings.arguments(path, seed)


def _wait_for_the_moment(training: ForkedTraining, draw: random.Random) -> int | None:
    """Waits for a random time; returns the exit code if the child ended by itself."""
    if draw.random() < EARLY_SHARE:
        end = time.monotonic() + draw.uniform(0, EARLY_SECONDS)
    else:
        limit = time.monotonic() + START_SECONDS
        while training.num_updates == 0 and time.monotonic() < limit:
            if (code := training.ended()) is not None:
                return code
            time.sleep(0.002)
        end = time.monotonic() + draw.uniform(0, LATER_SECONDS)
    while time.monotonic() < end:
        if (code := training.ended()) is not None:
            return code
        time.sleep(0.001)
    return training.ended()


def _inspect(path: Path, done: int, result: KilledRunResult) -> None:
    """Checks what a kill left behind.

    Args:
        path: the run folder, if there is one yet.
        done: updates that were finished, their checkpoints included.
        result: what is found is added here.
    """
    run = RunFolder(path)
    result.unfinished_files += any(path.rglob("*.tmp"))
    if not run.config_file.exists() or never_began(path):
        result.before_the_first_checkpoint += 1
        if done:
            result.violations.append(f"{done} updates are lost: there is no checkpoint")
        return
    try:
        saved = load_checkpoint(run.resume_file)["progress"]["num_updates"]
    except RequestError as error:
        result.violations.append(f"no checkpoint can be read: {error}")
        return
    if saved < done:
        result.violations.append(f"{done} updates were saved, and the checkpoint has {saved}")


def _run_to_the_end(arguments: list[str], folder: Path) -> list[str]:
    """Runs a command that nobody kills; a violation if it fails."""
    output = folder / "output.txt"
    code = ForkedTraining(arguments, output, 0.0).wait()
    return (
        [f"exit code {code}: {output.read_text(encoding='utf-8', errors='replace')[-500:]}"]
        if code
        else []
    )
