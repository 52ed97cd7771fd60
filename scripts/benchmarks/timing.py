"""Times two or more ways of doing the same work, side by side.

The sides take turns within one process, so that whatever else the machine does falls on all of them
alike. A ratio is the median of the ratios of neighbouring repeats, of CPU seconds: those of this
process with all its threads, and of the child processes that it has waited for.
"""

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self, final

OURS = "pgtoolkit"

INSTALL = "not installed: pip install 'policy-gradient-toolkit[bench]'"

SHORTEST = 0.3
"""Seconds that a repeat lasts at least; shorter work is repeated within it."""

Run = Callable[[int], None]
"""Does a case's work once; it is given the number of the repeat."""

Side = Callable[[], Run]
"""Sets up and warms up. Raises ``ImportError`` where its package is missing."""

Goal = Literal["at least", "at most"]
"""Of throughput at least, ours over theirs; or at most, of time or what else had better be less."""


@final
@dataclasses.dataclass(frozen=True)
class Case:
    """One piece of work, and who does it."""

    name: str
    work: float
    """Units in one call of a side's function."""
    unit: str
    sides: dict[str, Side]
    """The first is ours, named ``pgtoolkit``."""
    targets: dict[str, float]
    """Peer to the ratio that is to be reached; a peer may be without one."""
    goal: Goal = "at least"
    """at least: ratios are of throughput, ours over theirs; at most: of time, ours over theirs."""


@final
class Seconds(NamedTuple):
    """What one call of a side's function took."""

    cpu: float
    wall: float

    @classmethod
    def now(cls) -> Self:
        """Two clocks, to be subtracted from a later reading."""
        return cls(time.process_time() + _children(), time.perf_counter())

    def since(self, begin: "Seconds", calls: int = 1) -> "Seconds":
        """The seconds of each of so many calls, from ``begin`` until this reading."""
        return Seconds((self.cpu - begin.cpu) / calls, (self.wall - begin.wall) / calls)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One case against one peer: what the table and the JSON show."""

    benchmark: str = ""
    case: str
    peer: str
    goal: Goal = "at least"
    ratio: float | None = None
    """Median over the pairs of repeats; None where the peer is missing."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    """The least and the greatest of the pairs."""
    target: float | None = None
    reached: bool | None = None
    ours_cpu_s: float | None = None
    peer_cpu_s: float | None = None
    ours_wall_s: float | None = None
    peer_wall_s: float | None = None
    """Medians, of one call."""
    throughput: float | None = None
    """Ours, units in a CPU second."""
    unit: str = ""
    repeats: int = 0
    ours: list[float] = dataclasses.field(default_factory=list)
    theirs: list[float] = dataclasses.field(default_factory=list)
    """Every repeat, in CPU seconds, or in the unit if what is compared is no time."""
    note: str = ""


def measure(case: Case, repeats: int) -> list[Row]:
    """A row for each peer; one without a ratio for a peer that is not installed.

    Args:
        case: the work; each side is set up, and warmed up, here.
        repeats: turns of each side.
    """
    runs, missing = set_up(case)
    samples = take_turns(runs, repeats)
    rows = []
    for peer in case.sides:
        if peer in missing:
            rows.append(Row(case=case.name, peer=peer, goal=case.goal, note=missing[peer]))
        elif peer != OURS:
            rows.append(compare(case, peer, samples[OURS], samples[peer]))
    return rows


def set_up(case: Case) -> tuple[dict[str, Run], dict[str, str]]:
    """The functions of the sides that are there, and why the others are not."""
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name, side in case.sides.items():
        try:
            runs[name] = side()
        except ImportError as error:
            if name == OURS:
                raise
            missing[name] = f"{INSTALL} ({error.name or error})"
    return runs, missing


def take_turns(runs: Mapping[str, Run], repeats: int) -> dict[str, list[Seconds]]:
    """Seconds of a call of each function: one entry a turn, after a turn that is not counted."""
    calls = {name: _calls_needed(run) for name, run in runs.items()}
    samples: dict[str, list[Seconds]] = {name: [] for name in runs}
    for index in range(repeats):
        for name, run in runs.items():
            gc.collect()
            begin = Seconds.now()
            for _ in range(calls[name]):
                run(index)
            samples[name].append(Seconds.now().since(begin, calls[name]))
    return samples


def _calls_needed(run: Run) -> int:
    """How many calls a repeat of a function is to have; calling it warms it up."""
    run(0)  # apart: the first call may compile
    calls = 1
    while True:
        begin = time.perf_counter()
        for _ in range(calls):
            run(0)
        seconds = time.perf_counter() - begin
        if seconds >= SHORTEST / 2:
            return max(1, round(calls * SHORTEST / seconds))
        calls = max(2 * calls, int(calls * SHORTEST / max(seconds, 1e-6) / 2))


def compare(
    case: Case, peer: str, ours: Sequence[Seconds], theirs: Sequence[Seconds], **other: Any
) -> Row:
    """A row from the seconds of both, repeat by repeat.

    Args:
        case: names the work, its goal and its target.
        peer: whom ours is compared with.
        ours: of one call, in the order of the repeats.
        theirs: beside them.
        other: further fields of the row.
    """
    pairs = zip(ours, theirs, strict=True)
    slower = [a.cpu / b.cpu for a, b in pairs]
    ratios = slower if case.goal == "at most" else [1 / x for x in slower]
    ratio, cpu = statistics.median(ratios), statistics.median(x.cpu for x in ours)
    target = case.targets.get(peer)
    return Row(
        case=case.name,
        peer=peer,
        goal=case.goal,
        ratio=ratio,
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        target=target,
        reached=is_reached(ratio, target, case.goal),
        ours_cpu_s=cpu,
        peer_cpu_s=statistics.median(x.cpu for x in theirs),
        ours_wall_s=statistics.median(x.wall for x in ours),
        peer_wall_s=statistics.median(x.wall for x in theirs),
        throughput=case.work / cpu,
        unit=case.unit,
        repeats=len(ratios),
        ours=[x.cpu for x in ours],
        theirs=[x.cpu for x in theirs],
        **other,
    )


def is_reached(ratio: float, target: float | None, goal: Goal) -> bool | None:
    """Whether a ratio does what the target asks; None where there is no target."""
    if target is None:
        return None
    return ratio <= target if goal == "at most" else ratio >= target


def _children() -> float:
    """CPU seconds of the child processes that have been waited for."""
    try:
        import resource
    except ImportError:  # Windows counts none
        return 0.0
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
