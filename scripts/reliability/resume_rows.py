"""Runs that are interrupted and resumed, against runs that are not, case by case."""

import dataclasses
import itertools
import json
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.experiment import RunConfig
from pgtoolkit.scripts.cli.registry import load_agent
from pgtoolkit.scripts.reliability.compare_runs import differences
from pgtoolkit.scripts.reliability.interrupted_runs import (
    Finished,
    run_forked,
    signal_at_update,
)

ENVS = (
    "Pendulum-v1",
    "CartPole-v1",
    "LunarLanderContinuous-v3",
    "InvertedPendulum-v5",
    "HalfCheetah-v5",
    "pgtoolkit/Pendulum-v0",
    "pgtoolkit/CartPoleSwingUp-v0",
    "pgtoolkit/Hopper2D-v0",
    "pgtoolkit/PointMass-v0",
)
OURS = "pgtoolkit/"
SIGNALS = ("INT", "TERM", "KILL", "HUP")
VECTORIZATION = "vectorization"
"""The setting of a run that steps ordinary environments in this process or in others."""

NUM_ENVS, NUM_STEPS, NUM_UPDATES = 4, 8, 20
WINDOW = NUM_ENVS * NUM_STEPS
SMALL = {
    "num_envs": NUM_ENVS,
    "n_steps": NUM_STEPS,
    "batch_size": WINDOW // 2,
    "hidden": 8,
    "learning_starts": WINDOW,
    "buffer_size": 10 * WINDOW,
    "diagnostics_interval": 3,
    "total_steps": NUM_UPDATES * WINDOW,
    "eval_interval": 5 * WINDOW,
    "eval_episodes": 2,
    "eval_max_steps": 30,
    "checkpoint_interval": 3 * WINDOW,
}
"""Settings of the runs; an agent is given those that it has."""

Outcome: TypeAlias = Literal["equal", "different", "refused", "failed", "new episodes"]


@final
@dataclasses.dataclass(frozen=True)
class Setup:
    """What is trained."""

    agent: str
    env: str
    vectorization: str
    compile: str
    """Value of ``--compile``; empty for agents without it."""


@final
@dataclasses.dataclass(frozen=True)
class Row:
    """The outcome of one interruption."""

    agent: str
    env: str
    vectorization: str
    compile: str
    signal: str
    update: int
    """The update that was interrupted."""
    outcome: Outcome
    note: str
    """How the environments went on; or what differs, or what was refused."""
    seconds: float

    @property
    def setup(self) -> Setup:
        return Setup(self.agent, self.env, self.vectorization, self.compile)

    @property
    def line(self) -> str:
        words = (self.agent, self.env, self.vectorization, self.compile or "-", self.signal)
        place = f" at update {self.update}" if self.update else ""
        return f"{' '.join(words)}{place}: {self.outcome}: {self.note} ({self.seconds:.0f} s)"


def setups(
    agents: Sequence[str], envs: Sequence[str], compiles: Sequence[str] = ("never", "always")
) -> list[Setup]:
    """All that is trained: every agent on every environment, with each way to step and compile."""
    named = {field.name for field in dataclasses.fields(RunConfig)}
    found = []
    for agent, env in itertools.product(agents, envs):
        config = {field.name for field in dataclasses.fields(load_agent(agent)[1])}
        is_ours = env.startswith(OURS)
        ways = ("sync",) if is_ours or VECTORIZATION not in named else ("sync", "async")
        can_compile = is_ours and "compile" in config
        pairs = itertools.product(ways, compiles if can_compile else ("",))
        found += [Setup(agent, env, *pair) for pair in pairs]
    return found


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON file; none if there is no file.

    Raises:
        RequestError: the file holds something else.
    """
    if not path.exists():
        return []
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (TypeError, ValueError) as error:
        raise RequestError(f"{path} holds no rows of resume_exact: name another file") from error


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows, atomically."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(
        json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
    )
    temporary.replace(path)


def try_setup(setup: Setup, signals: Sequence[str], *, seed: int, timeout: float) -> Iterator[Row]:
    """Trains once without an interruption, then once for each signal, resumed.

    Args:
        setup: what is trained.
        signals: names of signals.
        seed: determines the updates that are interrupted.
        timeout: seconds after which a command is stopped.
    """
    if not signals:
        return
    with TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        whole, output = folder / "whole", folder / "output"
        base = run_forked([*command(setup), "--run-dir", str(whole)], output, timeout=timeout)
        if base.code != 0:
            outcome: Outcome = "refused" if base.code == 2 else "failed"
            for which in signals:
                yield _row(setup, which, 0, outcome, _problem(base), began)
            return
        for which in signals:
            began = time.monotonic()
            key = f"{seed} {dataclasses.astuple(setup)} {which}"
            update = random.Random(key).randint(2, NUM_UPDATES - 1)
            cut = folder / "cut"
            shutil.rmtree(cut, ignore_errors=True)
            arguments = [*command(setup), "--run-dir", str(cut)]
            prepare = signal_at_update(setup.agent, update, signal.Signals[f"SIG{which}"])
            first = run_forked(arguments, output, timeout=timeout, prepare=prepare)
            if first.code in (0, None, 2):
                yield _row(setup, which, update, "failed", f"no stop: {_problem(first)}", began)
                continue
            second = run_forked(["resume", str(cut)], output, timeout=timeout)
            outcome, note = _judged(second, whole, cut)
            yield _row(setup, which, update, outcome, note, began)


def command(setup: Setup, updates: int = NUM_UPDATES) -> list[str]:
    """``train`` with the small settings that the agent has, for so many updates."""
    config = {field.name for field in dataclasses.fields(load_agent(setup.agent)[1])}
    loop = ("total_steps", "eval_interval", "eval_episodes", "eval_max_steps")
    names = [name for name in SMALL if name in {*config, *loop, "checkpoint_interval"}]
    values = SMALL | {"total_steps": updates * WINDOW}
    flags = [word for name in names for word in (_flag(name), str(values[name]))]
    if setup.compile:
        flags += ["--compile", setup.compile]
    if VECTORIZATION in {field.name for field in dataclasses.fields(RunConfig)}:
        flags += [_flag(VECTORIZATION), setup.vectorization]
    return ["train", setup.agent, "--env", setup.env, *flags]


def summary(rows: Sequence[Row]) -> str:
    """The numbers of outcomes."""
    outcomes = [row.outcome for row in rows]
    counts = (f"{outcomes.count(o)} {o}" for o in dict.fromkeys(outcomes))
    return f"{len(rows)} interruptions: {', '.join(counts)}"


def _judged(resumed: Finished, whole: Path, cut: Path) -> tuple[Outcome, str]:
    if resumed.code != 0:
        return "failed", f"the resume: {_problem(resumed)}"
    lines = [line for line in resumed.output.splitlines() if line.startswith("environments: ")]
    how = lines[0].removeprefix("environments: ") if lines else "no word of the environments"
    found = differences(whole, cut)
    if not found:
        return "equal", how
    if "new episodes" in how:
        return "new episodes", how
    return "different", f"{how}; {len(found)} differences: {', '.join(found[:4])}"


def _problem(finished: Finished) -> str:
    code = "no end in time" if finished.code is None else f"exit code {finished.code}"
    return f"{code}: {finished.last_line[:200]}"


def _row(setup: Setup, which: str, update: int, outcome: Outcome, note: str, began: float) -> Row:
    seconds = round(time.monotonic() - began, 1)
    return Row(
        setup.agent,
        setup.env,
        setup.vectorization,
        setup.compile,
        which,
        update,
        outcome,
        note,
        seconds,
    )


def _flag(name: str) -> Any:
    return f"--{name.replace('_', '-')}"
