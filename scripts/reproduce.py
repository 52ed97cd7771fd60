"""``python scripts/reproduce.py NAME``: makes rows of the tables of ``docs/results.md``."""

import dataclasses
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import make_folder, require_picture, require_writable
from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.scripts.cli.registry import find_agent, lookup
from pgtoolkit.scripts.compare import EVALUATIONS, MAX_JOBS
from pgtoolkit.scripts.tables.reproductions import EXPERIMENTS, Experiment

if TYPE_CHECKING:
    from pgtoolkit.scripts.comparison.plan import PlannedRun
    from pgtoolkit.scripts.comparison.rows import Row

    Results = Sequence[tuple[Experiment, Row]]

FINAL_EPISODES = 100


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceArguments:
    """Trains the seeds of experiments and writes their results, one JSON file each.

    The results are of 100 deterministic episodes of each run's last policy, from starts that
    training has not seen. What a stopped or killed call has trained is not repeated. Seeds are
    added to those in the file; none is dropped.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME...")] = ()
    """Names of experiments, or patterns such as 'suite-*'; see --list."""
    seeds: tuple[int, ...] = ()
    """Seeds to run; any. Default: those of the experiment."""
    jobs: int | None = None
    """Number of runs at a time. Default: as many as this process may use cores."""
    run_dir: Path = Path("runs/reproduce")
    """Folder for the run folders."""
    output_dir: Path = Path("docs/results")
    """Folder of the JSON files."""
    list: bool = False
    """Print the experiments and exit."""
    table: bool = False
    """Print the table of the JSON files that there are, of the named experiments or of all, and
    exit."""
    plot: Path | None = None
    """File for the learning curves over environment steps and over CPU seconds: .png, .svg or
    .pdf."""

    def __post_init__(self) -> None:
        seeds = self.seeds
        conditions = {
            "seeds": (
                all(0 <= seed < 2**31 for seed in seeds) and len(set(seeds)) == len(seeds),
                "different numbers, at least 0 and below 2^31",
            ),
            "jobs": (self.jobs is None or 1 <= self.jobs <= MAX_JOBS, f"from 1 to {MAX_JOBS:,}"),
        }
        require_options(self, conditions)


def run(arguments: Sequence[str]) -> None:
    """Runs the experiments, and prints their table.

    Raises:
        RequestError: there is no such experiment, it needs an agent or environment that is not
            there, or a file cannot be written.
        Interruption: a signal asked to stop; the runs have written checkpoints.
        SystemExit: with 1, if a run failed.
    """
    options = parse(ReproduceArguments, arguments, command="reproduce")
    if options.plot is not None:
        require_picture(options.plot, "--plot")
    if options.list:
        print("\n".join(listed(name, EXPERIMENTS[name]) for name in EXPERIMENTS))
    elif options.table:
        show(saved(options), options.plot)
    else:
        reproduce(chosen(options.names), options)


def chosen(names: Sequence[str]) -> dict[str, Experiment]:
    """The experiments of these names and patterns.

    Raises:
        RequestError: there is none of that name.
    """
    if not names:
        raise RequestError(
            "name an experiment, or a pattern such as 'pendulum-*': python scripts/reproduce.py "
            "NAME (--list shows all)"
        )
    found = named(names)
    for experiment in found.values():
        find_agent(experiment.agent)
    return found


def named(names: Sequence[str]) -> dict[str, Experiment]:
    """The experiments of these names and patterns, in the order of the names.

    Raises:
        RequestError: there is none of that name.
    """
    found: dict[str, Experiment] = {}
    for name in names:
        matching = fnmatch.filter(EXPERIMENTS, name)
        if not matching:
            lookup(name, EXPERIMENTS, "experiment")
        found |= {each: EXPERIMENTS[each] for each in matching}
    return found


def reproduce(experiments: dict[str, Experiment], options: ReproduceArguments) -> None:
    """Runs the seeds of the experiments, all in one queue; writes and shows what they reach."""
    from pgtoolkit.scripts.cli.experiment import default_settings
    from pgtoolkit.scripts.comparison.carry_out import carry_out, report_failures
    from pgtoolkit.scripts.comparison.plan import require_possible
    from pgtoolkit.scripts.comparison.reproduction import (
        joined,
        require_joinable,
        result_file,
        write_row,
    )
    from pgtoolkit.scripts.comparison.rows import rows_of, settings_without_seed

    plans = {name: planned(experiment, options) for name, experiment in experiments.items()}
    make_folder(options.output_dir, "--output-dir")
    for name, runs in plans.items():
        path = result_file(options.output_dir, name)
        require_writable(path, "the result")
        defaults = default_settings(experiments[name].agent)
        require_joinable(path, settings_without_seed(runs[0]), defaults)
    everything = [run for runs in plans.values() for run in runs]
    sizes = require_possible(everything)
    schedule = carry_out(everything, options.jobs, options.run_dir)
    results = []
    for name, runs in plans.items():
        path = result_file(options.output_dir, name)
        for row in rows_of(schedule.complete_in_order(runs), sizes):
            write_row(path, name, experiments[name], joined(path, row))
            results.append((experiments[name], dataclasses.replace(row, label=name)))
            print(path)
    if results:
        show(results, options.plot)
    report_failures(schedule)


def show(results: "Results", plot: Path | None) -> None:
    """Prints the table of results, and draws their learning curves.

    Raises:
        RequestError: the picture cannot be written.
    """
    from pgtoolkit.scripts.comparison.reproduction import results_table

    print(results_table(results))
    if plot is not None:
        from pgtoolkit.scripts.comparison.figure import draw, save
        from pgtoolkit.scripts.comparison.groups import group_of

        save(draw([group_of(row) for _, row in results], ("return", "cpu")), plot)
        print(plot)


def planned(experiment: Experiment, options: ReproduceArguments) -> "list[PlannedRun]":
    """The runs of one experiment.

    Raises:
        RequestError: the agent has no such setting.
    """
    from pgtoolkit.scripts.comparison.plan import plan_runs
    from pgtoolkit.scripts.comparison.variants import Variant

    steps = experiment.total_steps
    return plan_runs(
        [Variant(experiment.agent, experiment.agent, experiment.settings)],
        [experiment.env],
        options.seeds or experiment.seeds,
        common={"total_steps": steps, "eval_interval": max(1, steps // EVALUATIONS)},
        root=options.run_dir,
        final_episodes=FINAL_EPISODES,
    )


def listed(name: str, experiment: Experiment) -> str:
    """One line of ``--list``."""
    from pgtoolkit.scripts.comparison.reproduction import bar_text

    return (
        f"{name}: {experiment.agent} on {experiment.env}, {experiment.total_steps:,} steps, seeds "
        f"{join_names(experiment.seeds)}; to reach: {bar_text(experiment.bar)}"
    )


def saved(options: ReproduceArguments) -> "Results":
    """The results in the JSON files of the named experiments, or of all.

    Raises:
        RequestError: there is no such file, or one cannot be read.
    """
    from pgtoolkit.scripts.comparison.reproduction import read_row, result_file

    wanted, folder = named(options.names or ("*",)), options.output_dir
    found = [
        (experiment, read_row(result_file(folder, name)))
        for name, experiment in wanted.items()
        if result_file(folder, name).exists()
    ]
    if not found:
        raise RequestError(f"{folder} holds no such results: run python scripts/reproduce.py NAME")
    return found


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
