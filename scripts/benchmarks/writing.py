"""The ``writing`` benchmark: the share of a training's CPU time that its TensorBoard file takes.

The share is that of everything that the training loop asks of the run's writer: scalars, the
scalars for the page of charts, pictures, texts and flushes. Evaluations are not counted on either
side, as in ``time/cpu_seconds``.
"""

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from pgtoolkit.scripts.benchmarks.timing import Row
from pgtoolkit.scripts.cli.experiment import Experiment, default_settings, parse_settings
from pgtoolkit.training.loop import train
from pgtoolkit.training.run_folder import RunFolder
from pgtoolkit.training.writer import RunWriter

TARGET = 0.02
"""The largest share."""

ENV = "pgtoolkit/Pendulum-v0"

CASES = {
    "shac": ("shac", 200_000, []),
    "shac, mixed": ("shac", 200_000, ["--estimator", "mixed"]),
    "ppo": ("ppo", 50_000, []),
    "reppo": ("reppo", 20_000, []),
    "reinforce": ("reinforce", 100_000, []),
    "sac": ("sac", 5_000, []),
}
"""Name to agent, environment steps and settings; all other settings are the defaults."""


def rows(repeats: int) -> list[Row]:
    """A row for each agent: CPU seconds of writing, and of the training that it is part of."""
    return [row_of(name, *case, repeats) for name, case in CASES.items()]


def row_of(name: str, agent: str, steps: int, settings: list[str], repeats: int) -> Row:
    """Trains with each of so many seeds, and compares the CPU seconds."""
    runs = [writing_and_training(agent, steps, settings, seed) for seed in range(repeats)]
    writing, training = ([run[i] for run in runs] for i in range(2))
    shares = [part / whole for part, whole in runs]
    share = statistics.median(shares)
    return Row(
        case=name,
        peer=f"training, {steps:,} steps",
        goal="at most",
        ratio=share,
        ratio_low=min(shares),
        ratio_high=max(shares),
        target=TARGET,
        reached=share <= TARGET,
        ours_cpu_s=statistics.median(writing),
        peer_cpu_s=statistics.median(training),
        unit="s",
        repeats=repeats,
        ours=writing,
        theirs=training,
    )


def writing_and_training(
    agent: str, steps: int, settings: list[str], seed: int
) -> tuple[float, float]:
    """CPU seconds of the writer, and of the training with it, in a run with these settings."""
    flags = ["--env", ENV, "--total-steps", str(steps), "--seed", str(seed), *settings]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        experiment = Experiment(parse_settings(agent, flags, command=f"train {agent}"))
        resolved = experiment.settings.as_dict()
        run_folder = RunFolder.create(Path(folder) / "run", resolved)
        with RunWriter(run_folder.path) as writer:
            writer.begin(resolved, default_settings(agent))
            timed: Any = TimedWriter(writer)
            end = train(
                experiment.agent,
                experiment.settings.loop,
                run_folder,
                timed,
                evaluate=experiment.evaluate,
                show=lambda _: None,
            )
    assert end.cpu_seconds is not None, "a new run counts its CPU time"
    return timed.seconds, end.cpu_seconds


@final
class TimedWriter:
    """Does what a :class:`RunWriter` does, and adds up the CPU time.

    Attributes:
        seconds: so far.
    """

    def __init__(self, writer: RunWriter) -> None:
        self.seconds = 0.0
        self.write = self._timed(writer.write)
        self.write_text = self._timed(writer.write_text)
        self.flush = self._timed(writer.flush)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            before = time.process_time()
            try:
                return method(*arguments)
            finally:
                self.seconds += time.process_time() - before

        return call
