"""``scripts/studies/against_sb3.py AGENT --json FILE``: learning curves beside Stable-Baselines3's.

Both implementations train with the same settings, seed by seed, and are evaluated deterministically
on the same episodes.
"""

import dataclasses
import functools
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse, parse_json_object
from pgtoolkit.scripts.cli.files import require_picture, require_writable, write_json
from pgtoolkit.scripts.cli.formatting import format_number

if TYPE_CHECKING:
    from pgtoolkit.scripts.benchmarks.sb3_peers import Learner
    from pgtoolkit.scripts.comparison.curves import Band

OURS, THEIRS = "pgtoolkit", "stable-baselines3"

FIRST_EVALUATION_SEED = 10_000

NOT_SETTINGS = ("json", "seeds", "plot")
"""Arguments in which calls with one file may differ."""

Point = dict[str, float]
"""Of a learning curve: environment steps, mean return, CPU seconds of training so far."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class AgainstSb3Arguments:
    """Trains one of our agents and Stable-Baselines3's, and compares their learning curves.

    A command that was stopped goes on where it was: runs that are in the file are not made again.
    trpo is that of sb3-contrib. Rewards and observations are not normalised, which
    Stable-Baselines3's agents do not do.
    """

    agent: Annotated[Literal["a2c", "ppo", "sac", "td3", "trpo"], tyro.conf.Positional]
    """The algorithm."""
    json: Path
    """File of the results, which is read first if it exists."""
    env: str = "Pendulum-v1"
    """The environment's Gymnasium id."""
    total_steps: int = 100_000
    """Environment steps of each run, in whole windows."""
    eval_interval: int = 10_000
    """Environment steps between two points of a curve, rounded up to whole windows."""
    seeds: int = 5
    """Number of runs of each implementation, with seeds 0, 1, 2, ..."""
    settings: str = "{}"
    """JSON object of settings of both, by our names, such as '{"gamma": 0.9}'."""
    episodes: int = 20
    """Number of episodes in each evaluation."""
    plot: Path | None = None
    """File for a figure of both curves: .png, .svg or .pdf."""

    def __post_init__(self) -> None:
        for name in ("total_steps", "eval_interval", "seeds", "episodes"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise RequestError(f"--{flag} must be at least 1, not {getattr(self, name)}")


def run(arguments: Sequence[str]) -> None:
    """Trains what is not in the file yet, and prints both curves and their difference at the end.

    Raises:
        RequestError: the request is wrong, the other package is not installed, or the file holds
            results of other settings.
    """
    options = parse(AgainstSb3Arguments, arguments, command="studies/against_sb3")
    if options.plot is not None:
        require_picture(options.plot, "--plot")
    import torch

    from pgtoolkit.scripts.benchmarks import sb3_peers

    torch.set_num_threads(1)
    given = parse_json_object(options.settings, "--settings")
    settings = sb3_peers.settings_of(options.agent, given)
    evaluations = evaluation_steps(options, sb3_peers.window_size(settings))
    agent, env, steps = options.agent, options.env, options.total_steps
    ours = functools.partial(sb3_peers.ours, agent, env, settings, total_steps=steps)
    theirs = functools.partial(sb3_peers.theirs, agent, env, settings)
    sides: dict[str, Callable[..., Learner]] = {OURS: ours, THEIRS: theirs}
    results = begun(options)
    for seed in range(options.seeds):
        for side, make in sides.items():
            if any(one["side"] == side and one["seed"] == seed for one in results["runs"]):
                continue
            curve = learning_curve(make(seed=seed), options, evaluations)
            results["runs"].append({"side": side, "seed": seed, "curve": curve})
            write_json(options.json, results)
            print(
                f"{side}, seed {seed}: {curve[-1]['return']:.1f} in {curve[-1]['cpu_s']:.0f} CPU s",
                flush=True,
            )
    print(report(results["runs"]))
    if options.plot is not None:
        draw(results["runs"], options)


def evaluation_steps(options: AgainstSb3Arguments, window: int) -> range:
    """The environment steps at which both are evaluated: after the same windows.

    Raises:
        RequestError: there is none within the planned steps.
    """
    interval = math.ceil(options.eval_interval / window) * window
    found = range(interval, options.total_steps + 1, interval)
    if not found:
        raise RequestError(
            f"--total-steps {options.total_steps} ends before the first evaluation, after "
            f"{interval} steps: give more, or a smaller --eval-interval"
        )
    return found


def learning_curve(
    learner: "Learner", options: AgainstSb3Arguments, evaluations: Sequence[int]
) -> list[Point]:
    """Trains up to each evaluation and evaluates, from the same starts for both implementations."""
    from pgtoolkit.scripts.benchmarks.learning import mean_return

    found: list[Point] = []
    seconds = 0.0
    for steps in evaluations:
        began = time.process_time()
        learner.train(steps)
        seconds += time.process_time() - began
        value = mean_return(
            learner.act, options.env, episodes=options.episodes, seed=FIRST_EVALUATION_SEED
        )
        found.append({"steps": float(steps), "return": value, "cpu_s": seconds})
    return found


def shared_settings(options: AgainstSb3Arguments) -> dict[str, Any]:
    """What all runs of a file have in common."""
    kept = dataclasses.asdict(options)
    return {name: value for name, value in kept.items() if name not in NOT_SETTINGS}


def begun(options: AgainstSb3Arguments) -> dict[str, Any]:
    """The results in the file so far.

    Raises:
        RequestError: they are of other settings, or the file cannot be written.
    """
    if not options.json.exists():
        require_writable(options.json, "--json")
        return {"settings": shared_settings(options), "runs": []}
    found: dict[str, Any] = json.loads(options.json.read_text(encoding="utf-8"))
    if found.get("settings") != shared_settings(options):
        raise RequestError(f"{options.json} holds results of other settings: name another file")
    return found


def report(runs: Sequence[dict[str, Any]]) -> str:
    """Both curves as a table, how far ours is within the other's interval, and the last returns."""
    ours, theirs = (band_of(runs, side) for side in (OURS, THEIRS))
    rows = [
        f"| {int(steps):,} | {interval_cell(ours, i)} | {interval_cell(theirs, i)} |"
        for i, steps in enumerate(ours.x)
    ]
    last = {s: [r["curve"][-1]["return"] for r in runs if r["side"] == s] for s in (OURS, THEIRS)}
    means = [statistics.mean(values) for values in last.values()]
    table = [f"| steps | {OURS}: IQM [95 %] | {THEIRS}: IQM [95 %] |", "|---|---|---|", *rows]
    if min(map(len, last.values())) < 2:
        ends = f"last return: {means[0]:.1f} and {means[1]:.1f}; one seed has no interval"
        return "\n".join([*table, ends])
    error = math.hypot(*(standard_error(values) for values in last.values()))
    within = int(((ours.iqm >= theirs.low) & (ours.iqm <= theirs.high)).sum())
    overlap = int(((ours.high >= theirs.low) & (ours.low <= theirs.high)).sum())
    return "\n".join(
        [
            *table,
            f"ours is within the interval of theirs at {within} of {len(rows)} points, and the "
            f"intervals overlap at {overlap}",
            f"last return, mean over {len(last[OURS])} and {len(last[THEIRS])} seeds: "
            f"{means[0]:.1f} and {means[1]:.1f}; difference {means[0] - means[1]:.1f}, standard "
            f"error {error:.1f}",
        ]
    )


def band_of(runs: Sequence[dict[str, Any]], side: str) -> "Band":
    """The interquartile mean of a side's curves, with its interval."""
    import numpy as np

    from pgtoolkit.scripts.comparison.curves import Curve, band

    columns = [
        [np.array([point[name] for point in one["curve"]]) for name in ("steps", "return")]
        for one in runs
        if one["side"] == side
    ]
    return band([Curve(steps, returns) for steps, returns in columns])


def interval_cell(found: "Band", i: int) -> str:
    """``-150 [-160, -140]``: the curve at its ``i``-th point."""
    value, low, high = (format_number(float(x[i]), 4) for x in (found.iqm, found.low, found.high))
    return f"{value} [{low}, {high}]"


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of two values or more."""
    return statistics.stdev(values) / math.sqrt(len(values))


def draw(runs: Sequence[dict[str, Any]], options: AgainstSb3Arguments) -> None:
    """Writes a figure of both curves.

    Raises:
        RequestError: the file cannot be written.
    """
    from pgtoolkit.scripts.comparison import figure
    from pgtoolkit.scripts.comparison.groups import Group
    from pgtoolkit.scripts.comparison.scalars import EVALUATION, Scalars

    assert options.plot is not None, "there is a file for the figure"

    def scalars(curve: Sequence[Point]) -> Scalars:
        return {EVALUATION: ([int(p["steps"]) for p in curve], [p["return"] for p in curve])}

    groups = [
        Group(f"{options.agent}, {side}", options.env, [scalars(one["curve"]) for one in members])
        for side in (OURS, THEIRS)
        if (members := [one for one in runs if one["side"] == side])
    ]
    figure.save(figure.draw(groups, ["return"]), options.plot)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
