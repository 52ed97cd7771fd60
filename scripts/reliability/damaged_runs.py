"""Damages copies of a run and looks at what ``evaluate`` and ``resume`` make of them."""

import dataclasses
import gc
import hashlib
import importlib
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import final

from pgtoolkit.scripts.reliability.forked_command import Limits, Outcome, run_forked
from pgtoolkit.scripts.reliability.judged import fault_of
from pgtoolkit.scripts.reliability.mutations import damage
from pgtoolkit.scripts.reliability.small_runs import WINDOW, SmallRun

MODULES = (
    "gymnasium.envs.classic_control",
    "pgtoolkit.scripts.cli.display.progress",
    "pgtoolkit.scripts.train",
    "pgtoolkit.training.writer",
    "torch.optim",
    "typeguard",
)
"""Modules that the commands import late."""

LIMITS = Limits(seconds=20.0, grace=5.0)


@final
@dataclasses.dataclass(frozen=True)
class Trial:
    """One damaged run and one command.

    Attributes:
        run: name of the run.
        kind: kind of the damage.
        what: the damage in words.
        command: ``evaluate`` or ``resume``.
        outcome: how the command ended.
        fault: what is wrong with that; None if nothing is.
    """

    run: str
    kind: str
    what: str
    command: str
    outcome: Outcome
    fault: str | None


def make_runs(runs: list[SmallRun], root: Path) -> dict[str, Path]:
    """Trains the small runs; returns their folders by name.

    Raises:
        RuntimeError: a run failed.
    """
    found = {}
    for small in runs:
        case = empty_case(root / small.name.replace(" ", "-"))
        outcome = run_forked(["train", *small.arguments(case / "run")], case, Limits(seconds=120))
        if outcome.code != 0:
            raise RuntimeError(f"the run {small.name} failed: {outcome.errors}")
        found[small.name] = case / "run"
    return found


def prepare(wholes: dict[str, Path]) -> None:
    """Does once what every child would do: imports modules and reads the settings' classes.

    Nothing is computed with torch, because a process with its threads must not be forked.

    Args:
        wholes: folders of whole runs.
    """
    from pgtoolkit.scripts import evaluate, resume
    from pgtoolkit.scripts.cli.arguments import parse
    from pgtoolkit.scripts.cli.experiment import settings_from_file
    from pgtoolkit.training.run_folder import RunFolder

    for name in MODULES:
        importlib.import_module(name)
    for folder in wholes.values():
        settings_from_file(RunFolder.open(folder)[1], [], command="resume")
        parse(resume.ResumeArguments, [str(folder)], command="resume")
        parse(evaluate.EvaluateArguments, [str(folder)], command="evaluate")
    gc.freeze()  # so that a child does not copy the memory of what it only reads


def empty_case(case: Path) -> Path:
    """An empty folder with ``work/a/b/c``, where a command works, and ``elsewhere``."""
    shutil.rmtree(case, ignore_errors=True)
    (case / "work/a/b/c").mkdir(parents=True)
    (case / "elsewhere").mkdir()
    (case / "elsewhere/file").write_text("not a part of the run\n", encoding="utf-8")
    return case


def trials(run_name: str, run: Path, case: Path, seed: int) -> Iterator[Trial]:
    """Damages a copy of a run, then evaluates it and resumes it for one more update.

    Args:
        run_name: its name.
        run: the folder of the whole run.
        case: a folder for the copy, which is emptied.
        seed: determines the damage.
    """
    empty_case(case)
    copied = case / "run"
    shutil.copytree(run, copied)
    kind, what = damage(copied, random.Random(seed))
    before = content_outside(case)
    commands = {
        "evaluate": ["--episodes", "1", "--eval-max-steps", "4"],
        "resume": ["--total-steps", str(4 * WINDOW)],
    }
    if what.startswith(("resume.safetensors", "replay-")):
        del commands["evaluate"]  # which does not read it
    for command, arguments in commands.items():
        outcome = run_forked([command, str(copied), *arguments], case, LIMITS)
        yield Trial(run_name, kind, what, command, outcome, fault(outcome, case, before))


def fault(outcome: Outcome, case: Path, before: dict[str, str]) -> str | None:
    """What is wrong with the end of a command on a damaged run; None if nothing is."""
    if outcome.interrupted:
        return f"{outcome.arguments[0]} takes more than {LIMITS.seconds:g} s"
    after = content_outside(case)
    changed = sorted(path for path in before.keys() | after if before.get(path) != after.get(path))
    if changed:
        return f"{outcome.arguments[0]} changes what is outside of the run: {changed[0]}"
    return fault_of(outcome)


def content_outside(case: Path) -> dict[str, str]:
    """What is in the folder of a case beside the run: path to kind, time and content."""
    found = {}
    for folder in ("work", "elsewhere"):
        for path in (case / folder).rglob("*"):
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            times = path.lstat().st_mtime_ns if path.is_file() else 0
            found[str(path.relative_to(case))] = f"{path.lstat().st_mode} {times} {content}"
    return found


def kept(case: Path, keep: Path, number: int) -> Path:
    """Copies the folder of a case, with links as links, to where it can be looked at."""
    target = keep / f"case-{number}"
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(keep, exist_ok=True)
    shutil.copytree(case, target, symlinks=True, ignore=_special, dirs_exist_ok=True)
    return target


def _special(folder: str, names: list[str]) -> list[str]:
    """FIFOs, which cannot be copied."""
    return [name for name in names if (Path(folder) / name).is_fifo()]


def say(text: str) -> None:
    """Prints at once, so that nothing is printed twice after a fork."""
    print(text, flush=True)
    sys.stdout.flush()
