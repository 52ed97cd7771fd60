"""The ``parallel`` benchmark: a run of two processes on two cores against one of one process.

The processes live through all repeats and take turns: while the run of one process makes its
updates, the two others wait. Speed is by the clock, which is what several processes are for, and by
the CPU seconds of all processes; a note has the share of the time that exchanges take.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, final

from pgtoolkit.scripts.benchmarks.timing import Row, Seconds
from pgtoolkit.scripts.reliability.parallel_runs import free_port

CASES: Mapping[str, Mapping[str, Any]] = {
    "ppo, 16 HalfCheetah-v5": {"agent": "ppo", "env": "HalfCheetah-v5", "num_envs": 16},
    "ppo, 64 HalfCheetah-v5": {"agent": "ppo", "env": "HalfCheetah-v5", "num_envs": 64},
    "reppo, 16 HalfCheetah-v5": {"agent": "reppo", "env": "HalfCheetah-v5", "num_envs": 16},
    "shac, 64 Pendulums of tensors": {"agent": "shac", "env": "pgtoolkit/Pendulum-v0"},
}
LOOP = {"total_steps": 400_000, "eval_interval": 0, "eval_episodes": 1, "compile": "always"}
"""The learning is compiled, as that of long runs is; that takes a minute for each case at first."""
WARM_UP, UPDATES = 1, 2


@final
class Turn(NamedTuple):
    """What some updates took."""

    steps: int
    """Environment steps."""
    seconds: Seconds
    """Clock of the first process, CPU of all."""
    exchanges: float
    """Seconds that the first process spent on exchanges."""
    stepping: float
    """Seconds that the first process spent in its environments, exchanges included."""


def rows(repeats: int) -> list[Row]:
    """Two rows for each case, by the clock and by CPU seconds; without figures on a single core."""
    if (os.cpu_count() or 1) < 2:
        return [Row(case=case, peer="1 process", note="needs two cores") for case in CASES]
    return [row for case, settings in CASES.items() for row in _rows(case, settings, repeats)]


def _rows(case: str, settings: Mapping[str, Any], repeats: int) -> list[Row]:
    one, two = _Run(settings, 1), _Run(settings, 2)
    try:
        turns = [(two.turn(), one.turn()) for _ in range(repeats)]
    finally:
        one.close()
        two.close()
    share = statistics.median(a.exchanges / a.seconds.wall for a, _ in turns)
    stepping = statistics.median(b.stepping / b.seconds.wall for _, b in turns)
    note = (
        f"two processes spend {share:.0%} of their time on exchanges; one spends {stepping:.0%} of "
        "its time in its environments"
    )
    return [
        _speeds(f"{case}, by the clock", _by_clock, turns, note=note),
        _speeds(f"{case}, by CPU seconds", _by_cpu, turns),
    ]


def _speeds(
    case: str, speed: Callable[[Turn], float], turns: Sequence[tuple[Turn, Turn]], note: str = ""
) -> Row:
    """A row in environment steps per second."""
    ours, theirs = ([speed(each[k]) for each in turns] for k in (0, 1))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Row(
        case=case,
        peer="1 process",
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        unit="steps/s",
        repeats=len(turns),
        ours=ours,
        theirs=theirs,
        note=note,
    )


def _by_clock(turn: Turn) -> float:
    return turn.steps / turn.seconds.wall


def _by_cpu(turn: Turn) -> float:
    return turn.steps / turn.seconds.cpu


@final
class _Run:
    """The processes of one run, each on a core of its own; they work when they are told."""

    def __init__(self, settings: Mapping[str, Any], count: int) -> None:
        forked = multiprocessing.get_context("fork")
        job = {
            "WORLD_SIZE": f"{count}",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": f"{free_port()}",
        }
        self._ours, theirs = forked.Pipe()
        self._processes = [
            forked.Process(
                target=_serve,
                args=(settings, job | {"RANK": f"{rank}"}, theirs if rank == 0 else None),
                daemon=True,
            )
            for rank in range(count)
        ]
        for process in self._processes:
            process.start()
        self._ours.recv()  # it is ready

    def turn(self) -> Turn:
        """Some updates."""
        self._ours.send(True)
        found: Turn = self._ours.recv()
        return found

    def close(self) -> None:
        self._ours.send(False)
        for process in self._processes:
            process.join()


def _serve(settings: Mapping[str, Any], job: Mapping[str, str], told: Connection | None) -> None:
    """A process of a run: makes the agent, warms up, and makes updates when process 0 is told."""
    os.environ.update(job)
    os.sched_setaffinity(0, {int(job["RANK"]) % (os.cpu_count() or 1)})
    import torch

    from pgtoolkit import parallel
    from pgtoolkit.scripts.cli.experiment import Experiment, setting_names, settings_from_file

    torch.set_num_threads(1)
    known = setting_names(settings["agent"])
    loop = {name: value for name, value in LOOP.items() if name in known}
    with parallel.processes():
        experiment = Experiment(settings_from_file({**loop, **settings}, [], command="benchmark"))
        stepping = _timed_steps(experiment.agent)
        _updates(experiment.agent, WARM_UP)
        if told is not None:
            told.send(True)
        while parallel.from_process(0, lambda: told is not None and told.recv(), "next turn"):
            stepping.clear()
            exchanged, begun = parallel.seconds(), Seconds.now()
            steps = _updates(experiment.agent, UPDATES)
            took, exchanged = Seconds.now().since(begun), parallel.seconds() - exchanged
            cpu = sum(parallel.exchange(took.cpu, "CPU seconds"))
            if told is not None:
                told.send(Turn(steps, Seconds(cpu, took.wall), exchanged, sum(stepping)))


def _updates(agent: Any, count: int) -> int:
    """Makes updates; returns their environment steps."""
    steps = 0
    for _ in range(count):
        window = agent.collect()
        agent.update(window)
        steps += int(window.valid.sum())
    return steps


def _timed_steps(agent: Any) -> list[float]:
    """Has the agent's environments note the seconds of each of their steps in this list."""
    env, found = agent.collector.env, list[float]()
    step = env.step

    def timed(actions: Any) -> Any:
        begun = time.perf_counter()
        taken = step(actions)
        found.append(time.perf_counter() - begun)
        return taken

    env.step = timed
    return found
