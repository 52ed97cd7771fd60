"""``scripts/studies/suite_race.py``: when pathwise agents reach where ppo and reppo end.

Reads the results of ``python scripts/reproduce.py 'suite-*'``, and prints a table of
``docs/results.md``. It trains nothing.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.formatting import format_number
from pgtoolkit.scripts.tables.reproductions import LONG, OWN_SUITE

if TYPE_CHECKING:
    from pgtoolkit.scripts.comparison.rows import Row

PATHWISE = ("shac", "sapo", "ahac")
OTHERS = ("ppo", "reppo")

SHARE = 0.2
"""Share of the other agents' steps and CPU seconds within which pathwise agents are to be there."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteRaceArguments:
    """Prints in which share of ppo's and reppo's steps the pathwise agents reach where these end.

    The better of the two sets the return. Shares are of its environment steps and CPU seconds, for
    the first of shac, sapo and ahac that is there.
    """

    results: Path = Path("docs/results")
    """Folder of the JSON files that scripts/reproduce.py has written."""


@final
class Passage(NamedTuple):
    """The first evaluation at which a mean over seeds has reached a return."""

    agent: str
    steps: float
    cpu_seconds: float


@final
class Race(NamedTuple):
    """The agents on one environment."""

    env: str
    ends: Mapping[str, float]
    """Mean return over seeds of each agent's final evaluation."""
    leader: str
    """Of ppo and reppo, the one that ends with more."""
    steps: float
    """The leader's environment steps and CPU seconds, means over seeds."""
    cpu_seconds: float
    passage: Passage | None
    """The first pathwise agent to reach the leader's end, by steps; None if none does."""


def run(arguments: Sequence[str]) -> None:
    """Prints the table.

    Raises:
        RequestError: the request is wrong, or no environment has results of ppo or reppo and of a
            pathwise agent.
    """
    options = parse(SuiteRaceArguments, arguments, command="studies/suite_race")
    from pgtoolkit.scripts.comparison.reproduction import read_row, result_file

    races = []
    for env in OWN_SUITE:
        names = {agent: f"suite-{env}-{agent}" for agent in (*PATHWISE, *OTHERS)}
        files = {agent: result_file(options.results, name) for agent, name in names.items()}
        long = {agent: result_file(options.results, names[agent] + LONG) for agent in OTHERS}
        files |= {agent: file for agent, file in long.items() if file.exists()}
        rows = {agent: read_row(file) for agent, file in files.items() if file.exists()}
        if set(rows) & set(PATHWISE) and set(rows) & set(OTHERS):
            races.append(race(env, rows))
    if not races:
        raise RequestError(
            f"{options.results} has no results of ppo or reppo and of shac, sapo or ahac on one "
            "environment: python scripts/reproduce.py 'suite-*' makes them"
        )
    print("\n".join(table(races)))


def race(env: str, rows: Mapping[str, "Row"]) -> Race:
    """Compares the agents' results on one environment."""
    ends = {agent: statistics.mean(row.final_returns) for agent, row in rows.items()}
    leader = max((agent for agent in OTHERS if agent in rows), key=lambda agent: ends[agent])
    passages = [
        found
        for agent in PATHWISE
        if agent in rows and (found := passage(agent, rows[agent], ends[leader]))
    ]
    runs = rows[leader].runs
    return Race(
        env,
        ends,
        leader,
        statistics.mean(run.steps for run in runs),
        statistics.mean(run.cpu_seconds or 0.0 for run in runs),
        min(passages, key=lambda found: found.steps, default=None),
    )


def passage(agent: str, row: "Row", target: float) -> Passage | None:
    """The first evaluation while training whose mean over seeds is at least ``target``."""
    returns = zip(*(run.curve_returns for run in row.runs), strict=True)
    for i, values in enumerate(returns):
        if statistics.mean(values) >= target:
            seconds = [run.curve_cpu_seconds for run in row.runs]
            spent = statistics.mean(x[i] for x in seconds if x is not None)
            return Passage(agent, row.runs[0].curve_steps[i], spent)
    return None


def table(races: Sequence[Race]) -> list[str]:
    """The lines of a Markdown table."""
    heads = ["environment", *PATHWISE, *OTHERS, "reached by", "share of steps", "share of CPU s"]
    within = sum(is_within(found) for found in races)
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(cells(found))} |" for found in races),
        "",
        f"within {SHARE:.0%} of the steps and of the CPU time: {within} of {len(races)}",
    ]


def cells(found: Race) -> list[str]:
    """The cells of a row; a share is of the steps and the CPU time of the leader's whole run."""
    ends = [
        format_number(found.ends[agent], 4) if agent in found.ends else "-"
        for agent in (*PATHWISE, *OTHERS)
    ]
    if found.passage is None:
        return [found.env, *ends, "none", "-", "-"]
    agent, steps, seconds = found.passage
    shares = [f"{steps / found.steps:.0%}", f"{seconds / found.cpu_seconds:.0%}"]
    return [found.env, *ends, f"{agent}, after {int(steps):,}", *shares]


def is_within(found: Race) -> bool:
    """Whether a pathwise agent needed no more than the share of either."""
    at = found.passage
    return at is not None and (
        at.steps <= SHARE * found.steps and at.cpu_seconds <= SHARE * found.cpu_seconds
    )


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
