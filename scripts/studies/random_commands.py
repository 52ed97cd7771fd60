"""``scripts/studies/random_commands.py``: random command lines must end in a result or a line.

Every command with random values for every option that its help names, in forked children with
limits of time, memory, file size and place.
"""

import dataclasses
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.reliability.command_lines import draw_command, read_grammar
from pgtoolkit.scripts.reliability.forked_command import Limits, Outcome, run_forked
from pgtoolkit.scripts.reliability.judged import fault_of

MODULES_OF_COMMANDS = (
    "torch.utils.tensorboard",
    "rich.progress",
    "pgtoolkit.scripts.train",
    "pgtoolkit.scripts.cli.experiment",
    "pgtoolkit.scripts.cli.display.video",
    "pgtoolkit.scripts.variance_study.inputs",
    "pgtoolkit.scripts.variance_study.report",
    "pgtoolkit.envs.checks.check_env",
    "gymnasium.wrappers",
)
"""Imported before the first child is forked, so that each starts at once."""

TRAINING = "train shac --env pgtoolkit/PointMass-v0 --num-envs 2 --n-steps 4 --total-steps 16"
TRAINING += " --eval-episodes 1 --hidden 4 --compile never --run-dir run"
"""Makes the run that is resumed, evaluated and measured."""

ENVS_OF_MINE = """
import gymnasium
import numpy as np


class Sound(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, True, {}


class RaisesTypeError(Sound):
    def __init__(self):
        raise TypeError("one\\ntwo\\nthree\\nfour\\nfive")


class RaisesValueError(Sound):
    def __init__(self, **kwargs):
        raise ValueError("x" * 5000)


class WantsNumber(Sound):
    def __init__(self, number=1, render_mode=None):
        self.number = number + 1


class Wrap(gymnasium.Wrapper):
    def __init__(self, env, number: int = 1):
        super().__init__(env)
        self.number = number + 1


class Nothing:
    pass
"""
"""Environments and a wrapper in a file, as a user has them."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomCommandsArguments:
    """Runs random command lines, and reports each distinct fault with a line that shows it.

    A command must exit with 0, 1 or 2, with at most three lines on stderr where that is not 0, no
    traceback, no signal, in 15 seconds of the processor or when it is interrupted, and write only
    where it was told to. Exit code 1 if one does not.
    """

    count: int = 2000
    """Number of command lines."""
    seed: int = 0
    """Seed of the command lines."""
    seconds: float | None = None
    """Stop after this time, whatever the count is."""

    def __post_init__(self) -> None:
        conditions = {
            "count": (1 <= self.count <= 10**9, "from 1 to 10^9"),
            "seconds": (self.seconds is None or self.seconds > 0, "above 0"),
        }
        require_options(self, conditions)


def run(arguments: Sequence[str]) -> None:
    """Runs the command lines and prints the table.

    Raises:
        RequestError: the request is wrong.
        SystemExit: with 1, if there is a fault.
    """
    options = parse(RandomCommandsArguments, arguments, command="studies/random_commands")
    outcomes: list[Outcome] = []
    found: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        for outcome in try_commands(
            Path(folder), options.count, options.seed, seconds=options.seconds
        ):
            outcomes.append(outcome)
            fault = fault_of(outcome)
            if fault is not None and fault not in found:
                found[fault] = outcome
                print(f"FAULT {fault}\n      {short_command(outcome)}", flush=True)
    print(table(outcomes))
    print(f"{len(outcomes)} command lines, {len(found)} distinct faults")
    if found:
        raise SystemExit(1)


def try_commands(
    folder: Path,
    count: int,
    seed: int,
    *,
    seconds: float | None = None,
    limits: Limits | None = None,
) -> Iterator[Outcome]:
    """Runs random command lines one after the other, each in a fresh folder with a finished run.

    Args:
        folder: an empty folder.
        count: number of command lines.
        seed: of the command lines.
        seconds: after these no further one begins.
        limits: of each command.
    """
    import importlib

    import torch

    torch.set_num_threads(1)
    for name in MODULES_OF_COMMANDS:
        importlib.import_module(name)
    grammar, generator = read_grammar(), random.Random(seed)
    kept, limits = folder / "kept", limits or Limits()
    kept.mkdir()
    (kept / "envs_of_mine.py").write_text(ENVS_OF_MINE, encoding="utf-8")
    place = Place(folder, kept)
    first = place.run(TRAINING.split(), limits)
    assert first.code == 0, first.errors
    shutil.copytree(place.work / "a/b/c/run", kept / "run")
    began = time.monotonic()
    for _ in range(count):
        if seconds is not None and time.monotonic() > began + seconds:
            return
        yield place.run(draw_command(grammar, Path("run"), generator), limits)


@final
@dataclasses.dataclass(frozen=True)
class Place:
    """Runs every command in a fresh copy of a folder, deep enough for ``../..`` to be inside."""

    folder: Path
    kept: Path

    @property
    def inside(self) -> Path:
        return self.folder / "inside"

    @property
    def work(self) -> Path:
        return self.inside / "work"

    def run(self, arguments: Sequence[str], limits: Limits) -> Outcome:
        shutil.rmtree(self.inside, ignore_errors=True)
        shutil.copytree(self.kept, self.work / "a" / "b" / "c")
        return run_forked(arguments, self.inside, limits)


def short_command(outcome: Outcome) -> str:
    """The command line, with long words cut."""
    words = (
        word if len(word) <= 150 else f"{word[:60]}... ({len(word)})" for word in outcome.arguments
    )
    return " ".join(map(ascii, words))


def table(outcomes: Sequence[Outcome]) -> str:
    """How often each command ended with each exit code."""
    counts = Counter((known_command(outcome), end_of(outcome)) for outcome in outcomes)
    rows = (
        f"{command:<12} {end:<14} {count:>6}" for (command, end), count in sorted(counts.items())
    )
    return "\n".join(("command      end             count", *rows))


def known_command(outcome: Outcome) -> str:
    """The command's name, or ``other``."""
    from pgtoolkit.scripts.cli.registry import COMMANDS

    name = outcome.arguments[0]
    return name if name in COMMANDS else "other"


def end_of(outcome: Outcome) -> str:
    return "still at work" if outcome.interrupted else f"exit {outcome.code}"


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
