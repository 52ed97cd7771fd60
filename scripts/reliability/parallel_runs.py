"""Runs of several processes, which are started here as torchrun starts them."""

import json
import random
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.registry import load_agent
from pgtoolkit.scripts.reliability.forked_training import ForkedTraining
from pgtoolkit.scripts.reliability.resume_rows import Setup, command
from pgtoolkit.scripts.reliability.run_comparison import differences
from pgtoolkit.training.run_folder import RunFolder

DIFFERENTIABLE = ("pgtoolkit/Pendulum-v0", "pgtoolkit/Hopper2D-v0", "pgtoolkit/CartPoleSwingUp-v0")
ORDINARY = ("Pendulum-v1", "InvertedPendulum-v5")
END_SECONDS = 10.0
"""Seconds after the end of one process within which the others must have ended."""


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@final
class ParallelTraining:
    """``pgtoolkit ARGUMENTS`` in forked processes that are one run.

    Args:
        arguments: of the command line, from ``train`` or ``resume`` on.
        count: the number of processes.
        folder: for ``output-RANK``, what each one prints.
    """

    def __init__(self, arguments: Sequence[str], count: int, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        job = {
            "WORLD_SIZE": f"{count}",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": f"{free_port()}",
        }
        self.outputs = [folder / f"output-{rank}" for rank in range(count)]
        self.processes = [
            ForkedTraining(arguments, output, variables=job | {"RANK": f"{rank}"})
            for rank, output in enumerate(self.outputs)
        ]

    @property
    def num_updates(self) -> int:
        """Updates that the first process has finished."""
        return self.processes[0].num_updates

    def kill(self, rank: int) -> None:
        """Ends one process by SIGKILL."""
        self.processes[rank].kill()

    def wait(self, timeout: float, but: Sequence[int] = ()) -> list[int | None]:
        """The exit codes; None for those that did not end in time, which are killed.

        Args:
            timeout: seconds.
            but: processes that are gone already; their code is that of SIGKILL.
        """
        deadline = time.monotonic() + timeout
        found: list[int | None] = [
            -signal.SIGKILL if rank in but else None for rank in range(len(self.processes))
        ]
        while None in found and time.monotonic() < deadline:
            for rank, code in enumerate(found):
                found[rank] = self.processes[rank].ended() if code is None else code
            time.sleep(0.01)
        for rank, code in enumerate(found):
            if code is None:
                self.kill(rank)
        return found

    def printed(self) -> str:
        """What all processes printed."""
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in self.outputs)


def envs_of(agent: str) -> tuple[str, ...]:
    """Environments that an agent takes: of both kinds, or those with a gradient where it needs one.

    An agent for discrete actions alone is not among ours.
    """
    kind, _ = load_agent(agent)
    return DIFFERENTIABLE if kind.needs_gradient else (*ORDINARY, DIFFERENTIABLE[0])


def compared(
    setup: Setup, counts: Sequence[int], updates: int, folder: Path, timeout: float
) -> Iterator[tuple[int, list[str]]]:
    """Trains with each number of processes; what differs from the run of one process.

    Raises:
        RequestError: the run of one process fails, as where a package is missing, or does not end
            in time.
    """
    arguments, alone = [*command(setup, updates), "--run-dir"], folder / "alone"
    base = ParallelTraining([*arguments, str(alone)], 1, folder)
    (code,) = base.wait(timeout)
    if code != 0:
        said = base.printed()[-500:].rpartition("error: ")[2].strip()
        why = f"no end after {timeout:g} s" if code is None else said or f"exit code {code}"
        raise RequestError(f"{setup.agent} on {setup.env} does not train in one process: {why}")
    for count in counts:
        run_dir = folder / f"of-{count}"
        training = ParallelTraining([*arguments, str(run_dir)], count, folder)
        codes = training.wait(timeout)
        if codes == [0] * count:
            yield count, differences(alone, run_dir)
        else:
            yield count, [f"exit codes {codes}: {training.printed()[-300:]}"]


def killed(
    setup: Setup, counts: tuple[int, int], updates: int, seed: int, folder: Path, timeout: float
) -> list[str]:
    """Kills a process at random, resumes with another number of them, and compares the end.

    Args:
        setup: what is trained; its run of one process is in ``folder/alone``.
        counts: processes before and after the kill.
        updates: for which the steps of the whole run are planned.
        seed: determines the process and the update.
        folder: for the run's folder, which is emptied.
        timeout: seconds of each of the two runs.

    Returns:
        What is wrong, one line each; empty where the run ends as the one that was left alone.
    """
    generator, run_dir = random.Random(seed), folder / "killed"
    shutil.rmtree(run_dir, ignore_errors=True)
    training = ParallelTraining(
        [*command(setup, updates), "--run-dir", str(run_dir)], counts[0], folder
    )
    # Windows may become longer, and updates fewer, than those that the steps were planned for.
    alone = RunFolder(folder / "alone")
    made = json.loads(alone.summary_file.read_text(encoding="utf-8"))["updates"]
    rank, update = generator.randrange(counts[0]), generator.randint(1, made - 2)
    deadline = time.monotonic() + timeout
    while training.num_updates < update and time.monotonic() < deadline:
        time.sleep(0.001)
    training.kill(rank)
    codes = training.wait(END_SECONDS, but=[rank])
    said = [line for line in training.printed().splitlines() if line.startswith("error: ")]
    found = [] if None not in codes else [f"no end within {END_SECONDS:.0f} s of a kill: {codes}"]
    if len(said) != 1:
        found.append(f"{len(said)} messages instead of one: {said}")
    second = ParallelTraining(["resume", str(run_dir)], counts[1], folder)
    codes = second.wait(timeout)
    if codes != [0] * counts[1]:
        return [*found, f"the resume ended with {codes}: {second.printed()[-300:]}"]
    return found + differences(alone.path, run_dir)
