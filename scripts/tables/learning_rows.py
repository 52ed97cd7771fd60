"""Runs and table of ``scripts/studies/learning_table.py``: returns of shac's settings."""

import dataclasses
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.experiment import Experiment, parse_settings
from pgtoolkit.scripts.cli.files import write_json
from pgtoolkit.scripts.tables.reproductions import OWN_SUITE
from pgtoolkit.training.loop import train
from pgtoolkit.training.progress import Progress
from pgtoolkit.training.run_folder import RunFolder
from pgtoolkit.training.writer import RunWriter

EXTRA_ENVS = {
    name: f"{Path(__file__).with_name('learning_envs.py')}:{name}" for name in ("Hover", "Wind")
}
"""Environments that are no part of the package, by the name in the table."""

ENVS = (*(f"pgtoolkit/{name}-v0" for name in OWN_SUITE), *EXTRA_ENVS)
"""The environments of the package whose reward has a gradient, and two more."""

SHAC = ("shac", "--estimator")
SETTINGS: dict[str, tuple[str, ...]] = {
    "default": ("shac",),
    "pathwise": (*SHAC, "pathwise"),
    "biases 0": ("shac", "--first-bias", "0"),
    "std 1": ("shac", "--log-std-init", "0"),
    "pathwise, biases 0, std 1": (
        *(*SHAC, "pathwise"),
        *("--first-bias", "0", "--log-std-init", "0"),
    ),
    "pathwise, biases 0, std 1, no LayerNorm": (
        *(*SHAC, "pathwise", "--no-layer-norm"),
        *("--first-bias", "0", "--log-std-init", "0"),
    ),
    "pathwise, biases +-1, std 1": (
        *(*SHAC, "pathwise"),
        *("--first-bias", "1", "--log-std-init", "0"),
    ),
    "ppo": ("ppo", "--num-envs", "64", "--n-steps", "32", "--batch-size", "256"),
    "ppo, raw rewards": (
        *("ppo", "--num-envs", "64", "--n-steps", "32", "--batch-size", "256"),
        "--no-normalize-rewards",
    ),
}
"""Settings to compare: name to agent and flags."""

MAX_LOSS = 0.1
"""Share of the best return by which a run may end below it and not count as spoilt."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRun:
    """The outcome of one training run."""

    setting: str
    env: str
    seed: int
    total_steps: int
    returns: list[float]
    """Mean return of each evaluation, in order; the last is at the end of the run."""
    seconds: float
    """CPU seconds of the run, evaluations included."""

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What was run."""
        return self.setting, self.env, self.seed, self.total_steps

    @property
    def end(self) -> float:
        return self.returns[-1]

    @property
    def best(self) -> float:
        return max(self.returns)

    @property
    def spoilt(self) -> bool:
        """Whether the run ends more than ``MAX_LOSS`` below its best, relative to the best."""
        return self.best - self.end > MAX_LOSS * abs(self.best)


def run_once(setting: str, env: str, seed: int, total_steps: int) -> LearningRun:
    """Trains one agent and keeps the return of every evaluation.

    Raises:
        RequestError: there is no such setting or environment.
    """
    if setting not in SETTINGS:
        raise RequestError(f"there is no setting {setting!r}: choose from {', '.join(SETTINGS)}")
    agent, *flags = SETTINGS[setting]
    run = ["--env", EXTRA_ENVS.get(env, env), "--seed", str(seed)]
    steps = ["--total-steps", str(total_steps)]
    settings = parse_settings(agent, [*flags, *run, *steps], command="studies/learning_table")
    began, returns = time.process_time(), []

    def keep(progress: Progress) -> None:
        if "eval/mean_reward" in progress.scalars:
            returns.append(progress.scalars.pop("eval/mean_reward"))

    experiment = Experiment(settings)
    with tempfile.TemporaryDirectory() as folder, RunWriter(Path(folder)) as writer:
        run_folder = RunFolder.create(Path(folder), {})
        loop = experiment.settings.loop
        train(experiment.agent, loop, run_folder, writer, evaluate=experiment.evaluate, show=keep)
    return LearningRun(
        setting=setting,
        env=env,
        seed=seed,
        total_steps=total_steps,
        returns=returns,
        seconds=time.process_time() - began,
    )


def read_runs(path: Path) -> list[LearningRun]:
    """The runs in a file of this study; none if there is no such file.

    Raises:
        RequestError: the file is not one of this study.
    """
    if not path.exists():
        return []
    try:
        return [LearningRun(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (json.JSONDecodeError, TypeError) as error:
        raise RequestError(f"{path} holds no runs of this study: name another file") from error


def complete(
    path: Path, settings: Sequence[str], envs: Sequence[str], seeds: int, total_steps: int
) -> Iterable[LearningRun]:
    """Makes the runs that the file does not hold yet, and adds each to it when it is done.

    Seeds come first in the order, so that a study that is stopped has all environments.

    Yields:
        Each new run.
    """
    runs = read_runs(path)
    done = {run.key for run in runs}
    for seed in range(seeds):
        for env in envs:
            for setting in settings:
                if (setting, env, seed, total_steps) in done:
                    continue
                runs.append(run_once(setting, env, seed, total_steps))
                write_json(path, [dataclasses.asdict(run) for run in runs])
                yield runs[-1]


def table(runs: Sequence[LearningRun]) -> list[list[str]]:
    """The heading, then a row for each environment: mean return at the end of each setting.

    A cell is ``mean +- standard error (n)``; ``s spoilt`` follows where runs ended more than
    ``MAX_LOSS`` below their best.
    """
    settings = [name for name in SETTINGS if any(run.setting == name for run in runs)]
    rows = [["environment", *settings]]
    for env in dict.fromkeys(run.env for run in runs):
        cells = [
            cell([run for run in runs if (run.env, run.setting) == (env, name)])
            for name in settings
        ]
        rows.append([env.removeprefix("pgtoolkit/").removesuffix("-v0"), *cells])
    return rows


def cell(runs: Sequence[LearningRun]) -> str:
    """Mean return at the end, its standard error, the number of runs, and how many were spoilt."""
    if not runs:
        return "-"
    ends = [run.end for run in runs]
    error = ""
    if len(ends) > 1:
        error = f" +- {statistics.stdev(ends) / math.sqrt(len(ends)):.2g}"
    spoilt = sum(run.spoilt for run in runs)
    note = f", {spoilt} spoilt" if spoilt else ""
    return f"{statistics.mean(ends):.4g}{error} ({len(ends)}{note})"


def as_markdown(rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table whose first row is the heading."""
    heading, *rest = [f"| {' | '.join(str(value) for value in row)} |" for row in rows]
    return "\n".join([heading, "|" + "---|" * len(rows[0]), *rest])
