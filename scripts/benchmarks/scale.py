"""The ``scale`` benchmark: cost and memory of a pathwise gradient, by environments and horizon."""

import ctypes
import gc
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pgtoolkit.compiling import Compile
from pgtoolkit.scripts.benchmarks.pathwise import climber
from pgtoolkit.scripts.benchmarks.timing import (
    Case,
    Row,
    Run,
    Seconds,
    compare,
    is_reached,
    take_turns,
)

SIZES = (16, 64, 256, 1024, 2048, 4096, 8192, 16384)

HORIZONS = (8, 32, 256)

LARGE = 1024

DEAREST = 1.3
"""What a step may cost with many environments, in units of the cheapest with no more of them."""

MEMORY = {"plain": 1.1, "compiled": 1.1, "checkpointed": 0.75}
"""The power of ``N`` or ``H`` with which memory may grow: 1 is linear, 1/2 is the root."""

BY_SIZE, BY_HORIZON = ((1024, 64), (8192, 64)), ((1024, 16), (1024, 256))
"""``(N, H)`` between which memory's growth is measured."""

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def rows(repeats: int) -> list[Row]:
    """Cost by ``N`` at each horizon, then memory by ``N`` and by ``H``."""
    return [*cost_rows("compiled", HORIZONS, repeats), *cost_rows("plain", (32,), repeats)] + (
        memory_rows() if sys.platform == "linux" else []
    )


def climber_of(kind: str, num_envs: int, num_steps: int) -> Callable[[int], None]:
    """A function of ``H``, for one number of environments; it has been called once."""
    compile: Compile = "always" if kind == "compiled" else "never"
    every = round(math.sqrt(num_steps)) if kind == "checkpointed" else 0
    climb = climber(num_envs, compile=compile, checkpoint_every=every)
    # Of a short window: that is where compiled steps are compared with plain ones.
    climb(min(num_steps, 8))
    return climb


def cost_rows(kind: str, horizons: Sequence[int], repeats: int) -> list[Row]:
    """How far a step's cost rises from its best as more than 1024 environments are taken."""
    climbers = {size: climber_of(kind, size, 8) for size in SIZES}
    found: list[Row] = []
    for horizon in horizons:
        runs = {str(n): run_of(climb, horizon) for n, climb in climbers.items()}
        found += rises(kind, horizon, take_turns(runs, repeats))
    return found


def run_of(climb: Callable[[int], None], num_steps: int) -> Run:
    """A gradient through so many steps."""
    return lambda index: climb(num_steps)


def rises(kind: str, horizon: int, samples: Mapping[str, Sequence[Seconds]]) -> list[Row]:
    """A row for each large number of environments.

    Args:
        kind: compiled or plain.
        horizon: steps of a window.
        samples: number of environments to the seconds of a window, one entry a repeat.
    """
    cost = {
        name: [
            Seconds(x.cpu / (int(name) * horizon), x.wall / (int(name) * horizon)) for x in turns
        ]
        for name, turns in samples.items()
    }
    typical = {int(name): statistics.median(x.cpu for x in turns) for name, turns in cost.items()}
    found = []
    for size in (n for n in typical if n > LARGE):
        best = min((n for n in typical if n <= size), key=lambda n: typical[n])
        name, peer = f"{kind}, H = {horizon}, N = {size}", f"cheapest up to it, N = {best}"
        case = Case(name, 1, "steps", {}, {peer: DEAREST}, "at most")
        found.append(compare(case, peer, cost[str(size)], cost[str(best)]))
    return found


def memory_rows() -> list[Row]:
    """With which power of ``N`` and of ``H`` the memory of a gradient grows."""
    growths = [(kind, "N", BY_SIZE) for kind in ("plain", "compiled")]
    growths += [(kind, "H", BY_HORIZON) for kind in MEMORY]
    return [growth_row(kind, axis, *places) for kind, axis, places in growths]


def growth_row(kind: str, axis: str, small: tuple[int, int], large: tuple[int, int]) -> Row:
    """``log(bytes ratio) / log(size ratio)`` between two places ``(N, H)``."""
    theirs, ours = (memory(kind, *place) for place in (small, large))
    grown = math.prod(large) / math.prod(small)
    power = math.log(statistics.median(ours) / statistics.median(theirs)) / math.log(grown)
    return Row(
        case=f"power of {axis}, memory, {kind}, (N, H) = {large}",
        peer=f"{small}",
        goal="at most",
        ratio=power,
        target=MEMORY[kind],
        reached=is_reached(power, MEMORY[kind], "at most"),
        unit="MB",
        repeats=len(ours),
        ours=ours,
        theirs=theirs,
    )


def memory(kind: str, num_envs: int, num_steps: int) -> list[float]:
    """Megabytes by which a gradient raises this process's resident memory, at its highest."""
    climb = climber_of(kind, num_envs, num_steps)
    return [peak(lambda: climb(num_steps)) for _ in range(3)]


def peak(work: Callable[[], None]) -> float:
    """Megabytes of resident memory at most, beyond what there was before. Linux only."""
    gc.collect()
    # What was freed goes back to the system, so that using it again is seen.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    REFERENCES.write_text("5")  # the highest so far is now
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
