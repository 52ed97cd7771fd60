"""``pgtoolkit compare --env ENV ... --agents AGENT ...``: agents x environments x seeds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from pgtoolkit.errors import RequestError
from pgtoolkit.limits import MAX_COUNT
from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import require_picture, require_writable, write_json
from pgtoolkit.scripts.cli.presets import PresetChoice, find_preset
from pgtoolkit.scripts.engines.names import EngineName

if TYPE_CHECKING:
    from pgtoolkit.scripts.comparison.rows import Row

MAX_SEEDS, MAX_JOBS = 10_000, 1_000

EVALUATIONS = 20
"""Evaluations of a run by default: the points of its curve."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Trains agents on environments with several seeds, side by side, and compares their returns.

    Each run is a process of its own with one thread, in a folder of its own that every command
    reads. The same command goes on where one that was stopped or killed has ended: runs that are
    complete are not repeated. The table shows the returns of each run's last policy in
    deterministic episodes from starts that training has not seen.
    """

    env: tuple[str, ...]
    """The environments: ids, module:Id-v0 or path/to/file.py:Class. Modules and files are run as
    Python code."""
    agents: tuple[str, ...]
    """The agents, with settings of their own where wanted: ppo, or
    reppo:estimator=score_function,learning_rate=1e-3. The text is the name in the table."""
    seeds: int = 5
    """Number of runs of each agent on each environment, with the seeds first_seed, first_seed + 1,
    and so on."""
    first_seed: int = 0
    """The first seed."""
    total_steps: int = 500_000
    """Environment steps of each run."""
    set: tuple[str, ...] = ()
    """Settings of `pgtoolkit train`: NAME=VALUE for all runs, such as num_envs=8 or hidden=[64,64];
    AGENT.NAME=VALUE for the runs of one agent."""
    preset: PresetChoice = "auto"
    """auto: agents start from the settings that this package has for them on an environment, where
    it has some, and the command prints them; none: from their defaults. --set and settings in
    --agents win over either."""
    eval_interval: int | None = None
    """Environment steps between the evaluations of a run, which are the points of its curve.
    Default: a 20th of total_steps."""
    eval_episodes: int | None = None
    """Episodes of each of these evaluations. Default: that of `pgtoolkit train`."""
    final_episodes: int = 100
    """Deterministic episodes of each run's last policy, for the table."""
    jobs: int | None = None
    """Number of runs at a time. Default: as many as this process may use cores; with ray, as the
    cluster has cores; with slurm, all."""
    engine: EngineName = "local"
    """Where runs are trained. local: processes of this machine; ray: tasks of the Ray cluster of
    RAY_ADDRESS, or of one on this machine; slurm: jobs, submitted by submitit. All machines must
    have the same files, and results are the same."""
    engine_options: str = "{}"
    """JSON object: of ray.init, or submitit's parameters of a job, such as
    '{"slurm_partition": "cpu", "timeout_min": 240}'."""
    run_dir: Path = Path("runs/comparison")
    """Folder for the run folders. Several comparisons may have the same one: a run is named by its
    agent, environment and seed, and by a digest of all its settings."""
    plot: Path | None = None
    """File for the learning curves over environment steps and over CPU seconds: .png, .svg or
    .pdf."""
    json: Path | None = None
    """File for the results, as JSON: a list of one object for each agent on each environment."""

    def __post_init__(self) -> None:
        conditions = {
            "env": (len(self.env) > 0, "one environment at least"),
            "agents": (len(self.agents) > 0, "one agent at least"),
            "seeds": (1 <= self.seeds <= MAX_SEEDS, f"from 1 to {MAX_SEEDS:,}"),
            "first_seed": (0 <= self.first_seed < 2**31 - MAX_SEEDS, "at least 0 and below 2^31"),
            "final_episodes": (1 <= self.final_episodes <= MAX_COUNT, f"from 1 to {MAX_COUNT:,}"),
            "jobs": (self.jobs is None or 1 <= self.jobs <= MAX_JOBS, f"from 1 to {MAX_JOBS:,}"),
        }
        require_options(self, conditions)
        repeated = [env for env in self.env if self.env.count(env) > 1]
        if repeated:
            raise RequestError(f"--env has {repeated[0]} twice: leave one of them out")


def run(arguments: Sequence[str]) -> None:
    """Plans the runs, makes those that are missing, and reports.

    Raises:
        RequestError: there is no such agent, environment or setting, an agent cannot be trained on
            an environment, or a file cannot be written; nothing has run then.
        Interruption: a signal asked to stop; the runs have written checkpoints.
        SystemExit: with 1, if a run failed.
    """
    options = parse(CompareArguments, arguments, command="compare")
    from pgtoolkit.scripts.comparison.variants import parse_variants

    variants = parse_variants(options.agents, options.set)
    if options.json is not None:
        require_writable(options.json, "--json")
    if options.plot is not None:
        require_picture(options.plot, "--plot")
    from pgtoolkit.scripts.comparison.carry_out import carry_out, report_failures
    from pgtoolkit.scripts.comparison.plan import plan_runs, require_possible
    from pgtoolkit.scripts.comparison.rows import rows_of
    from pgtoolkit.scripts.engines.choose import engine_of

    pairs = dict.fromkeys((variant.agent, env) for env in options.env for variant in variants)
    presets = [x for x in (find_preset(options.preset, *pair) for pair in pairs) if x is not None]
    for preset in presets:
        print(preset.sentence)
    runs = plan_runs(
        variants,
        options.env,
        range(options.first_seed, options.first_seed + options.seeds),
        common=loop_settings(options),
        presets={(preset.agent, preset.env): preset.settings for preset in presets},
        root=options.run_dir,
        final_episodes=options.final_episodes,
    )
    sizes = require_possible(runs)
    with engine_of(options.engine, options.engine_options, options.run_dir) as engine:
        schedule = carry_out(runs, options.jobs, options.run_dir, engine)
    report(rows_of(schedule.complete_in_order(runs), sizes), options)
    report_failures(schedule)


def loop_settings(options: CompareArguments) -> dict[str, Any]:
    """The settings of all runs that are options of this command."""
    interval = options.eval_interval
    if interval is None:
        interval = max(1, options.total_steps // EVALUATIONS)
    settings = {"total_steps": options.total_steps, "eval_interval": interval}
    return settings | ({"eval_episodes": options.eval_episodes} if options.eval_episodes else {})


def report(rows: Sequence["Row"], options: CompareArguments) -> None:
    """Prints the table and writes the files of the runs that are complete.

    On a terminal the tables fit its width; elsewhere, as in a file, the table is Markdown.
    """
    from rich.console import Console

    from pgtoolkit.scripts.comparison.differences import as_dicts, differences_text
    from pgtoolkit.scripts.comparison.table import markdown_table
    from pgtoolkit.scripts.comparison.terminal_table import print_tables

    if options.json is not None:
        write_json(options.json, as_dicts(rows))
    if not rows:
        return
    console = Console()
    if console.is_terminal:
        print_tables(rows, console)
    else:
        print(markdown_table(rows))
    if text := differences_text(rows):
        console.print(f"\n{text}", markup=False, highlight=False, soft_wrap=True)
    if options.plot is not None:
        from pgtoolkit.scripts.comparison.figure import draw, save
        from pgtoolkit.scripts.comparison.groups import group_of

        save(draw([group_of(row) for row in rows], ("return", "cpu")), options.plot)
        print(options.plot)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
