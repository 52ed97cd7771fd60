"""``scripts/studies/suite_race.py``: when pathwise agents reach where ppo and reppo end.

Reads the results of ``python scripts/reproduce.py 'suite-*'``, and prints a table of
``docs/results.md``. It trains nothing.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, final

from pgtoolkit.config import Settings, above
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
class SuiteRaceArguments(Settings):
    """Prints in which share of ppo's and reppo's steps the pathwise agents reach where these end.

    The better of the two sets the return, that of its last evaluation while training. Shares are of
    its environment steps and CPU seconds, for the first of shac, sapo and ahac that is there; and
    of its rise from its first evaluation to its last, for that one of the three that ends with
    most. A seed determines the starts of these evaluations, so all means are over the seeds that
    every agent has.
    """

    results: Path = Path("docs/results")
    """Folder of the JSON files that scripts/reproduce.py has written."""
    rise: Annotated[float, above(0)] = 1.0
    """Share of the leader's rise that counts as being there."""


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
    seeds: Sequence[int]
    """Those of which every agent has a run."""
    ends: Mapping[str, float]
    """Mean return over seeds of each agent's final evaluation."""
    leader: str
    """Of ppo and reppo, the one that ends with more."""
    steps: float
    """The leader's environment steps and CPU seconds, means over seeds."""
    cpu_seconds: float
    passage: Passage | None
    """The first pathwise agent to be there, by steps; None if none is."""
    share_of_rise: float
    """How far the best pathwise agent comes, from 0 at the leader's first evaluation to 1 at its
    last; NaN if the leader learns nothing."""


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
            races.append(race(env, with_common_seeds(env, rows), options.rise))
    if not races:
        raise RequestError(
            f"{options.results} has no results of ppo or reppo and of shac, sapo or ahac on one "
            "environment: python scripts/reproduce.py 'suite-*' makes them"
        )
    print("\n".join(table(races)))


def with_common_seeds(env: str, rows: Mapping[str, "Row"]) -> dict[str, "Row"]:
    """The rows with the runs alone whose seeds every agent has.

    Raises:
        RequestError: there is no such seed.
    """
    seeds = set.intersection(*({run.seed for run in row.runs} for row in rows.values()))
    if not seeds:
        raise RequestError(
            f"the results of {', '.join(rows)} on {env} have no seed in common: run "
            f"python scripts/reproduce.py 'suite-{env}-*' --seeds 0"
        )
    return {
        agent: dataclasses.replace(row, runs=[run for run in row.runs if run.seed in seeds])
        for agent, row in rows.items()
    }


def race(env: str, rows: Mapping[str, "Row"], rise: float = 1.0) -> Race:
    """Compares the agents' results on one environment; all are of the same seeds.

    Args:
        env: name of the environment.
        rows: the results by agent.
        rise: the share of the leader's rise that counts as being there.
    """
    ends = {agent: statistics.mean(row.final_returns) for agent, row in rows.items()}
    leader = max((agent for agent in OTHERS if agent in rows), key=lambda agent: ends[agent])
    runs = rows[leader].runs
    # While training, evaluations of one seed have the same starts for all agents.
    start, end = (evaluation(rows[leader], index) for index in (0, -1))
    target = start + rise * (end - start)
    best = max(evaluation(row, -1) for agent, row in rows.items() if agent in PATHWISE)
    passages = [
        found
        for agent in PATHWISE
        if agent in rows and (found := passage(agent, rows[agent], target))
    ]
    return Race(
        env,
        [run.seed for run in runs],
        ends,
        leader,
        statistics.mean(run.steps for run in runs),
        statistics.mean(run.cpu_seconds or 0.0 for run in runs),
        min(passages, key=lambda found: found.steps, default=None),
        (best - start) / (end - start) if end > start else math.nan,
    )


def evaluation(row: "Row", index: int) -> float:
    """The mean over seeds of one evaluation while training."""
    return statistics.mean(run.curve_returns[index] for run in row.runs)


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
    reached = "share of the rise", "reached by", "share of steps", "share of CPU s"
    heads = ["environment", "seeds", *PATHWISE, *OTHERS, *reached]
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
    rise = found.share_of_rise
    begin = [found.env, str(len(found.seeds)), *ends, "-" if math.isnan(rise) else f"{rise:.1%}"]
    if found.passage is None:
        return [*begin, "none", "-", "-"]
    agent, steps, seconds = found.passage
    shares = [f"{steps / found.steps:.0%}", f"{seconds / found.cpu_seconds:.0%}"]
    return [*begin, f"{agent}, after {int(steps):,}", *shares]


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
