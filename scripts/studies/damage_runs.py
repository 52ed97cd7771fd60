"""``scripts/studies/damage_runs.py``: run folders damaged at random, then evaluated and resumed.

Whatever a folder holds, both commands must end in seconds with the exit code 0, 1 or 2, say why in
three lines at most, and write nowhere but in the folder.
"""

import dataclasses
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, final

import tyro

from pgtoolkit.config import Settings, at_least
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.registry import lookup
from pgtoolkit.scripts.reliability.damaged_runs import (
    Trial,
    kept,
    make_runs,
    prepare,
    say,
    trials,
)
from pgtoolkit.scripts.reliability.small_runs import small_runs

REPORT_EVERY = 250
"""Mutations between lines of progress."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class DamageArguments(Settings):
    """Damages copies of small runs at random, and evaluates and resumes each of them.

    The exit code is 1 if a command hangs, crashes, shows a traceback or more than three lines, or
    writes outside of the run. The folder of each such case is kept.
    """

    mutations: Annotated[int, at_least(1)] = 1_000
    """Number of damaged folders."""
    seed: Annotated[int, at_least(0)] = 0
    """Seed of the damage; case i is that of the seed and i, whatever the number of workers."""
    workers: Annotated[int, at_least(1)] = 1
    """Number of processes."""
    runs: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Names of the small runs, such as --runs shac --runs 'shac model'. Default: all."""
    case: int | None = None
    """Take this one case again, and show what the commands print."""
    keep: Path = Path("damaged")
    """Folder for the cases with a fault."""


def run(arguments: Sequence[str]) -> None:
    """Makes the runs, damages them and prints a table of how the commands end.

    Raises:
        RequestError: there is no such small run.
        SystemExit: with 1 if there is a fault.
    """
    options = parse(DamageArguments, arguments, command="studies/damage_runs")
    known = {small.name: small for small in small_runs()}
    chosen = [lookup(name, known, "small run") for name in options.runs or known]
    prepare({})
    with tempfile.TemporaryDirectory(prefix="damage-runs-", dir=fast_folder()) as folder:
        root = Path(folder).resolve()
        began = time.monotonic()
        wholes = make_runs(chosen, root / "whole")
        prepare(wholes)
        say(f"{len(wholes)} runs made in {time.monotonic() - began:.0f} s")
        numbers = range(options.mutations) if options.case is None else [options.case]
        found = damaged(list(numbers), options, wholes, root)
    say(report(found, options))
    if any(trial.fault for trial in found):
        sys.exit(1)


def fast_folder() -> str | None:
    """A folder in memory, where writing to disk costs no time; None where there is none."""
    memory = Path("/dev/shm")
    return str(memory) if os.access(memory, os.W_OK) else None


def damaged(
    numbers: list[int], options: DamageArguments, wholes: dict[str, Path], root: Path
) -> list[Trial]:
    """The trials of the cases with these numbers."""
    if options.workers == 1:
        return damaged_in_turn(numbers, options, wholes, root / "worker")
    shares = [numbers[k :: options.workers] for k in range(options.workers)]
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = [
            pool.submit(damaged_in_turn, share, options, wholes, root / f"worker{k}")
            for k, share in enumerate(shares)
        ]
        return [trial for job in jobs for trial in job.result()]


def damaged_in_turn(
    numbers: list[int], options: DamageArguments, wholes: dict[str, Path], case: Path
) -> list[Trial]:
    """The trials of one worker, with the folders of those that have a new fault kept."""
    found: list[Trial] = []
    faults: set[str] = set()
    for count, number in enumerate(numbers, 1):
        seed = random.Random(f"{options.seed} {number}").randrange(2**62)
        name = random.Random(seed).choice(sorted(wholes))
        for trial in trials(name, wholes[name], case, seed):
            found.append(trial)
            if options.case is not None:
                say(f"{trial.command}: {trial.outcome.code}\n{trial.outcome.errors}")
            if trial.fault is not None and trial.fault not in faults:
                faults.add(trial.fault)
                where = kept(case, options.keep, number)
                say(
                    f"case {number}: {trial.fault}\n  {name}, {trial.kind}: {trial.what}\n  {where}"
                )
        if count % REPORT_EVERY == 0:
            say(f"{count} of {len(numbers)}")
    return found


def report(found: Sequence[Trial], options: DamageArguments) -> str:
    """A table of kinds of damage and exit codes, and each fault with its number and a case."""
    codes = ("0", "1", "2", "fault")
    counts = Counter((trial.kind, _ending(trial)) for trial in found)
    lines = [f"{'damage':<26}" + "".join(f"{code:>8}" for code in codes)]
    for kind in sorted({trial.kind for trial in found}):
        lines.append(f"{kind:<26}" + "".join(f"{counts[kind, code]:>8}" for code in codes))
    totals = Counter(_ending(trial) for trial in found)
    lines.append(f"{'all':<26}" + "".join(f"{totals[code]:>8}" for code in codes))
    faults = Counter(trial.fault for trial in found if trial.fault is not None)
    lines += [f"{number:>6} times: {fault}" for fault, number in faults.most_common()]
    lines.append(
        f"{len(found)} commands on damaged runs, seed {options.seed}, {len(faults)} faults"
    )
    return "\n".join(lines)


def _ending(trial: Trial) -> str:
    return "fault" if trial.fault is not None else str(trial.outcome.code)


if __name__ == "__main__":
    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
