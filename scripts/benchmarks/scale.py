"""The ``scale`` benchmark: cost and memory of a pathwise gradient at growing sizes.

The cost of an environment step is compared across numbers of environments ``N``; memory is compared
across ``N`` and across the horizon ``H``.
"""

import ctypes
import gc
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pgtoolkit.compiling import Compile
from pgtoolkit.scripts.benchmarks.pathwise import make_gradient_step
from pgtoolkit.scripts.benchmarks.timing import (
    Case,
    Row,
    Run,
    Seconds,
    compare,
    is_reached,
    take_turns,
)

NUM_ENVS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384)

HORIZONS = (8, 32, 256)

MIN_REPORTED_ENVS = 1024
"""Numbers of environments above this one get a row."""

MAX_COST_RATIO = 1.3
"""Target for the cost of a step over the lowest cost with as many environments or fewer."""

MAX_MEMORY_POWER = {"plain": 1.1, "compiled": 1.1, "checkpointed": 0.75}
"""Target for the power of ``N`` or ``H`` with which memory grows: 1 is linear, 1/2 the root."""

BY_ENVS, BY_HORIZON = ((1024, 64), (8192, 64)), ((1024, 16), (1024, 256))
"""Pairs of ``(N, H)`` between which the growth of memory is measured."""

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def rows(repeats: int) -> list[Row]:
    """Cost by ``N`` at each horizon; on Linux also memory by ``N`` and by ``H``."""
    return [*cost_rows("compiled", HORIZONS, repeats), *cost_rows("plain", (32,), repeats)] + (
        memory_rows() if sys.platform == "linux" else []
    )


def warmed_up_step(kind: str, num_envs: int, num_steps: int) -> Callable[[int], None]:
    """A gradient step as a function of the horizon, after one call.

    Args:
        kind: plain, compiled or checkpointed.
        num_envs: ``N``.
        num_steps: the horizon that it will be used for.
    """
    compile: Compile = "always" if kind == "compiled" else "never"
    every = round(math.sqrt(num_steps)) if kind == "checkpointed" else 0
    gradient_step = make_gradient_step(num_envs, compile=compile, checkpoint_every=every)
    # A short window is enough: the first call compiles and compares with plain steps.
    gradient_step(min(num_steps, 8))
    return gradient_step


def cost_rows(kind: str, horizons: Sequence[int], repeats: int) -> list[Row]:
    """Times a gradient step at each horizon and each number of environments.

    Args:
        kind: plain or compiled.
        horizons: the horizons, in steps.
        repeats: turns of each number of environments.
    """
    gradient_steps = {num_envs: warmed_up_step(kind, num_envs, 8) for num_envs in NUM_ENVS}
    found: list[Row] = []
    for horizon in horizons:
        runs = {str(n): _at_horizon(step, horizon) for n, step in gradient_steps.items()}
        found += cost_increases(kind, horizon, take_turns(runs, repeats))
    return found


def _at_horizon(gradient_step: Callable[[int], None], num_steps: int) -> Run:
    return lambda index: gradient_step(num_steps)


def cost_increases(kind: str, horizon: int, samples: Mapping[str, Sequence[Seconds]]) -> list[Row]:
    """A row for each number of environments above ``MIN_REPORTED_ENVS``.

    Its ratio is the cost of an environment step over the lowest cost with as many environments or
    fewer.

    Args:
        kind: plain or compiled.
        horizon: steps of a window.
        samples: number of environments to the time of a window, one entry for each repeat.
    """
    cost = {
        name: [
            Seconds(x.cpu / (int(name) * horizon), x.wall / (int(name) * horizon)) for x in times
        ]
        for name, times in samples.items()
    }
    median = {int(name): statistics.median(x.cpu for x in times) for name, times in cost.items()}
    found = []
    for num_envs in (n for n in median if n > MIN_REPORTED_ENVS):
        cheapest = min((n for n in median if n <= num_envs), key=lambda n: median[n])
        name = f"{kind}, H = {horizon}, N = {num_envs}"
        peer = f"cheapest up to it, N = {cheapest}"
        case = Case(name, 1, "steps", {}, {peer: MAX_COST_RATIO}, "at most")
        found.append(compare(case, peer, cost[str(num_envs)], cost[str(cheapest)]))
    return found


def memory_rows() -> list[Row]:
    """The power of ``N`` and of ``H`` with which the memory of a gradient grows."""
    growths = [(kind, "N", BY_ENVS) for kind in ("plain", "compiled")]
    growths += [(kind, "H", BY_HORIZON) for kind in MAX_MEMORY_POWER]
    return [growth_row(kind, axis, *sizes) for kind, axis, sizes in growths]


def growth_row(kind: str, axis: str, small: tuple[int, int], large: tuple[int, int]) -> Row:
    """The power ``log(bytes ratio) / log(size ratio)`` between two sizes.

    Args:
        kind: plain, compiled or checkpointed.
        axis: ``N`` or ``H``, whichever differs between the two.
        small: ``(N, H)``.
        large: ``(N, H)``.
    """
    theirs, ours = (memory(kind, *size) for size in (small, large))
    growth = math.prod(large) / math.prod(small)
    power = math.log(statistics.median(ours) / statistics.median(theirs)) / math.log(growth)
    return Row(
        case=f"power of {axis}, memory, {kind}, (N, H) = {large}",
        peer=f"{small}",
        goal="at most",
        ratio=power,
        target=MAX_MEMORY_POWER[kind],
        reached=is_reached(power, MAX_MEMORY_POWER[kind], "at most"),
        unit="MB",
        repeats=len(ours),
        ours=ours,
        theirs=theirs,
    )


def memory(kind: str, num_envs: int, num_steps: int) -> list[float]:
    """Peak megabytes of resident memory that a gradient step adds, in three repeats."""
    gradient_step = warmed_up_step(kind, num_envs, num_steps)
    return [peak_memory(lambda: gradient_step(num_steps)) for _ in range(3)]


def peak_memory(work: Callable[[], None]) -> float:
    """Megabytes by which resident memory rises at most while ``work`` runs. Linux only."""
    gc.collect()
    # Return freed memory to the system first: reusing it would not raise resident memory.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    CLEAR_REFS.write_text("5", encoding="utf-8")  # resets the peak, VmHWM, to the present value
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """A number of kilobytes from ``/proc/self/status``."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
