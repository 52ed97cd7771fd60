"""Times two or more implementations of the same work, side by side.

The sides take turns within one process, so that other load on the machine affects all of them
alike. A ratio is the median over the repeats of the ratio of CPU seconds. CPU seconds are those of
this process with all its threads, and of the child processes that it has waited for.
"""

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self, final

from pgtoolkit.extras import install_command

OURS = "pgtoolkit"

NOT_INSTALLED = f"not installed: {install_command('bench')}"

MIN_REPEAT_SECONDS = 0.3
"""Wall time that a repeat lasts at least; shorter work is called several times within it."""

Run = Callable[[int], None]
"""Does a case's work once; the argument is the number of the repeat."""

Side = Callable[[], Run]
"""Sets up one implementation. Raises ``ImportError`` if its package is not installed."""

Goal = Literal["at least", "at most"]
"""Meaning of a ratio and its target. at least: throughput, ours over theirs, should reach the
target. at most: time or memory, ours over theirs, should not exceed it."""


@final
@dataclasses.dataclass(frozen=True)
class Case:
    """One piece of work, and the implementations that do it."""

    name: str
    work: float
    """Units of work in one call of a side's function."""
    unit: str
    sides: dict[str, Side]
    """Name to implementation; the first is ours, named ``pgtoolkit``, the others are its peers."""
    targets: dict[str, float]
    """Peer to the ratio to be reached; a peer need not have one."""
    goal: Goal = "at least"


@final
class Seconds(NamedTuple):
    """CPU and wall time, of a call or since an arbitrary start."""

    cpu: float
    wall: float

    @classmethod
    def now(cls) -> Self:
        """The current reading of both clocks."""
        return cls(time.process_time() + _child_cpu_seconds(), time.perf_counter())

    def since(self, begin: "Seconds", calls: int = 1) -> "Seconds":
        """The time from ``begin`` until this reading, divided by the number of calls."""
        return Seconds((self.cpu - begin.cpu) / calls, (self.wall - begin.wall) / calls)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One case against one peer: a line of the table and an object of the JSON file."""

    benchmark: str = ""
    case: str
    peer: str
    goal: Goal = "at least"
    ratio: float | None = None
    """Median over the repeats; None if the peer is not installed."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    """Smallest and largest ratio of the repeats."""
    target: float | None = None
    reached: bool | None = None
    """Whether the ratio meets the target; None without one."""
    ours_cpu_s: float | None = None
    peer_cpu_s: float | None = None
    ours_wall_s: float | None = None
    peer_wall_s: float | None = None
    """Medians, in seconds for one call."""
    throughput: float | None = None
    """Our throughput in units per CPU second."""
    unit: str = ""
    repeats: int = 0
    ours: list[float] = dataclasses.field(default_factory=list)
    theirs: list[float] = dataclasses.field(default_factory=list)
    """Every repeat, in CPU seconds; in ``unit`` if the comparison is not of times."""
    note: str = ""


def measure(case: Case, repeats: int) -> list[Row]:
    """Times all sides of a case and compares ours with each peer.

    Args:
        case: its sides are set up and warmed up here.
        repeats: counted turns of each side.

    Returns:
        A row for each peer; without a ratio for a peer that is not installed.
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
    """Sets up every side.

    Returns:
        Side to its function; and peer to a note, for those that are not installed.

    Raises:
        ImportError: our own side cannot be imported.
    """
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name, side in case.sides.items():
        try:
            runs[name] = side()
        except ImportError as error:
            if name == OURS:
                raise
            missing[name] = f"{NOT_INSTALLED} ({error.name or error})"
    return runs, missing


def take_turns(runs: Mapping[str, Run], repeats: int) -> dict[str, list[Seconds]]:
    """Times all functions in turns, after warming each of them up.

    Returns:
        Name to the time of one call, one entry for each repeat.
    """
    calls = {name: _calls_per_repeat(run) for name, run in runs.items()}
    samples: dict[str, list[Seconds]] = {name: [] for name in runs}
    for index in range(repeats):
        for name, run in runs.items():
            gc.collect()
            begin = Seconds.now()
            for _ in range(calls[name]):
                run(index)
            samples[name].append(Seconds.now().since(begin, calls[name]))
    return samples


def _calls_per_repeat(run: Run) -> int:
    """How many calls make a repeat of ``MIN_REPEAT_SECONDS``. Also warms the function up."""
    run(0)  # not timed: the first call may compile
    calls = 1
    while True:
        begin = time.perf_counter()
        for _ in range(calls):
            run(0)
        seconds = time.perf_counter() - begin
        if seconds >= MIN_REPEAT_SECONDS / 2:
            return max(1, round(calls * MIN_REPEAT_SECONDS / seconds))
        calls = max(2 * calls, int(calls * MIN_REPEAT_SECONDS / max(seconds, 1e-6) / 2))


def compare(
    case: Case, peer: str, ours: Sequence[Seconds], theirs: Sequence[Seconds], **other: Any
) -> Row:
    """A row from the times of two sides, repeat by repeat.

    Args:
        case: gives name, goal and target.
        peer: the side that ours is compared with.
        ours: time of one call of our side, in the order of the repeats.
        theirs: time of one call of the peer, in the same order.
        other: further fields of the row.
    """
    time_ratios = [a.cpu / b.cpu for a, b in zip(ours, theirs, strict=True)]
    ratios = time_ratios if case.goal == "at most" else [1 / x for x in time_ratios]
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
    """Whether a ratio meets its target; None without a target."""
    if target is None:
        return None
    return ratio <= target if goal == "at most" else ratio >= target


def _child_cpu_seconds() -> float:
    """CPU seconds of the child processes that this process has waited for."""
    try:
        import resource
    except ImportError:  # not available on Windows
        return 0.0
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
