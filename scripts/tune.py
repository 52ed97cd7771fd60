"""``pgtoolkit tune AGENT --env ENV --trials N``: searches an agent's settings."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from pgtoolkit.errors import RequestError
from pgtoolkit.extras import install_command
from pgtoolkit.limits import MAX_COUNT
from pgtoolkit.scripts.cli.arguments import (
    asks_for_help,
    command_help,
    field_names,
    flags_of,
    parse_known,
    read_yaml,
    require_flags,
    require_options,
)
from pgtoolkit.scripts.cli.files import require_writable, write_json
from pgtoolkit.scripts.cli.own_agents import names_own_agent, short_name
from pgtoolkit.scripts.cli.registry import AGENTS, require_agent
from pgtoolkit.scripts.engines.names import EngineName

if TYPE_CHECKING:
    from pgtoolkit.scripts.cli.experiment import RunSettings
    from pgtoolkit.scripts.tuning.carry_out import Plan
    from pgtoolkit.scripts.tuning.space import Dimension
    from pgtoolkit.scripts.tuning.study import Study

MAX_TRIALS, MAX_SEEDS, MAX_JOBS = 100_000, 1_000, 1_000

EVALUATIONS = 10
"""Evaluations of a run by default: where a trial may be pruned."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneArguments:
    """Searches an agent's settings for the greatest mean return over seeds.

    A trial trains the agent with settings that Optuna chooses, once for each seed, and evaluates
    each run's last policy in deterministic episodes. Every process that is started with the same
    command, also in a second terminal, works at the same study, and a command that was stopped or
    killed goes on where it has ended. Every setting of `pgtoolkit train` may be given a value,
    which all trials have.
    """

    env: str | None = None
    """The environment: an id (Pendulum-v1, pgtoolkit/Pendulum-v0, module:Id-v0) or
    path/to/file.py:Class, whose code is run. It is given here or by config."""
    total_steps: int | None = None
    """Environment steps of each run. Default: that of `pgtoolkit train`, 500,000."""
    trials: int = 20
    """Trials that the study shall have, of all processes and earlier calls together; pruned and
    failed ones count."""
    tune: tuple[str, ...] = ()
    """Settings to search: NAME with the range of its annotation, NAME=LOW..HIGH, or NAME=A,B,C to
    choose from. :log or :linear behind a range sets its scale, such as gamma=0.9..0.999:linear.
    Default: a few settings of the agent; `pgtoolkit tune AGENT --help` shows them."""
    seeds: int = 2
    """Runs of each trial, with the seeds seed, seed + 1, and so on."""
    final_episodes: int = 100
    """Deterministic episodes of each run's last policy, of which the mean return counts."""
    prune: Literal["median", "asha", "none"] = "median"
    """median: a trial ends early where its evaluations are worse than those of half of the complete
    trials at the same step, from the sixth complete trial on. asha: at a third of the steps, a
    ninth and so on it goes on only if it is among the best third of those that have come so far,
    which suits many trials at a time. none: every trial goes to its end."""
    jobs: int | None = None
    """Number of trials at a time, each with one process. Default: as many as this process may use
    cores; with ray, as the cluster has cores; with slurm, all. With 1 a study can be repeated to
    the bit."""
    engine: EngineName = "local"
    """Where runs are trained. local: processes of this machine; ray: tasks of the Ray cluster of
    RAY_ADDRESS, or of one on this machine; slurm: jobs, submitted by submitit. All machines must
    have the same files."""
    engine_options: str = "{}"
    """JSON object: of ray.init, or submitit's parameters of a job, such as
    '{"slurm_partition": "cpu", "timeout_min": 240}'."""
    config: Path | None = None
    """YAML with settings that all trials have, as for `pgtoolkit train`; flags win over it."""
    run_dir: Path | None = None
    """Folder of the study. Default: runs/tune/ENV__AGENT__DIGEST, with a digest of the settings."""
    json: Path | None = None
    """File for all trials and the best settings, as JSON."""

    def __post_init__(self) -> None:
        conditions = {
            "trials": (1 <= self.trials <= MAX_TRIALS, f"from 1 to {MAX_TRIALS:,}"),
            "seeds": (1 <= self.seeds <= MAX_SEEDS, f"from 1 to {MAX_SEEDS:,}"),
            "final_episodes": (1 <= self.final_episodes <= MAX_COUNT, f"from 1 to {MAX_COUNT:,}"),
            "jobs": (self.jobs is None or 1 <= self.jobs <= MAX_JOBS, f"from 1 to {MAX_JOBS:,}"),
        }
        require_options(self, conditions)


def run(arguments: Sequence[str]) -> None:
    """Opens or makes the study, works at trials, and reports.

    Raises:
        RequestError: the request is wrong; nothing has run then.
        Interruption: a signal asked to stop; the runs have written checkpoints.
        SystemExit: with 1, if no trial is complete.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(command_help("tune AGENT", TuneArguments))
        return
    if not arguments or arguments[0].startswith("-"):
        raise RequestError(
            f"name the agent first: pgtoolkit tune AGENT --env ENV ({', '.join(AGENTS)})"
        )
    agent_name = arguments[0]
    require_agent(agent_name)
    if asks_for_help(arguments):
        print(help_of(agent_name))
        return
    options, rest = parse_known(TuneArguments, arguments[1:], command=f"tune {agent_name}")
    rest += flags_of({"env": options.env, "total_steps": options.total_steps})
    if options.json is not None:
        require_writable(options.json, "--json")
    require_optuna()
    from pgtoolkit.scripts.comparison.plan import require_possible
    from pgtoolkit.scripts.engines.choose import engine_of
    from pgtoolkit.scripts.tuning.carry_out import carry_out
    from pgtoolkit.scripts.tuning.results import report, write_best
    from pgtoolkit.scripts.tuning.study import Study

    plan, space, defaults = make_plan(agent_name, options, rest)
    root = options.run_dir or default_root(plan, space)
    require_possible(plan.runs(agent_name, {}, root))
    study = Study(root, identity_of(plan, space), space, plan.seeds.start, defaults)
    print(opening(study, plan, options), flush=True)
    with engine_of(options.engine, options.engine_options, root) as engine:
        carry_out(
            study,
            plan,
            options.trials,
            options.jobs or engine.places(options.trials),
            on_end=lambda: write_best(study, plan),
            engine=engine,
        )
    finish(study, plan, options)
    print(report(study, plan))


def make_plan(
    agent_name: str, options: TuneArguments, rest: list[str]
) -> "tuple[Plan, list[Dimension], dict[str, Any]]":
    """What all trials have in common, the settings to search, and the defaults of these.

    Args:
        agent_name: the agent.
        options: the options of this command.
        rest: the settings that are given, as flags of ``pgtoolkit train``.

    Raises:
        RequestError: a setting or a range is wrong.
    """
    from pgtoolkit.scripts.cli.experiment import default_settings, named_settings, setting_names
    from pgtoolkit.scripts.tuning.carry_out import Plan
    from pgtoolkit.scripts.tuning.pruning import Points
    from pgtoolkit.scripts.tuning.space import searched_settings

    names = [*setting_names(agent_name), *field_names(TuneArguments)]
    require_flags(rest, names, command=f"tune {agent_name}")
    config = {} if options.config is None else read_yaml(options.config)
    if "env" not in named_settings(rest) | set(config):
        raise RequestError(f"name the environment: pgtoolkit tune {agent_name} --env ENV")
    settings = parse_fixed(agent_name, config, rest, options)
    given = named_settings(rest) | set(config)
    space = searched_settings(agent_name, settings.agent, options.tune, given)
    loop = settings.loop
    interval = loop.eval_interval
    if interval is None:
        interval = max(1, loop.total_steps // EVALUATIONS)
    defaults = default_settings(agent_name)
    fixed = {
        name: value
        for name, value in settings.as_dict().items()
        if name not in ("agent", "seed") and (name not in defaults or value != defaults[name])
    }
    fixed |= {"total_steps": loop.total_steps, "eval_interval": interval}
    prunes = options.prune != "none" and interval > 0
    first = settings.run.seed
    plan = Plan(
        agent=settings.agent_name,
        fixed=fixed,
        total_steps=loop.total_steps,
        seeds=range(first, first + options.seeds),
        final_episodes=options.final_episodes,
        points=Points(loop.total_steps, interval, options.seeds) if prunes else None,
        prune=options.prune,
    )
    return plan, space, defaults


def parse_fixed(
    agent_name: str, config: dict[str, Any], rest: list[str], options: TuneArguments
) -> "RunSettings":
    """The settings that all trials have, with the defaults of those that are searched.

    Raises:
        RequestError: a setting is wrong, or the configuration is that of another agent.
    """
    from pgtoolkit.scripts.cli.experiment import absolute_path, settings_from_file

    if absolute_path(str(config.setdefault("agent", agent_name))) != absolute_path(agent_name):
        raise RequestError(f"{options.config} configures {config['agent']}, not {agent_name}")
    return settings_from_file(config, rest, command=f"train {agent_name}")


def require_optuna() -> None:
    """Checks that Optuna is installed.

    Raises:
        RequestError: it is not; names the command that installs it.
    """
    try:
        import optuna  # noqa: F401  # is it installed?
    except ImportError as error:
        raise RequestError(f"tune needs Optuna: {install_command('tune')}") from error


def identity_of(plan: "Plan", space: "Sequence[Dimension]") -> dict[str, Any]:
    """What the trials of a study have in common: they can be compared."""
    return {
        "agent": plan.agent,
        **plan.fixed,
        "seeds": list(plan.seeds),
        "final_episodes": plan.final_episodes,
        "prune": "none" if plan.points is None else plan.prune,
        "tune": [dimension.text for dimension in space],
    }


def default_root(plan: "Plan", space: "Sequence[Dimension]") -> Path:
    """``runs/tune/ENV__AGENT__DIGEST``: the same for the same command, from the same folder."""
    from pgtoolkit.scripts.comparison.plan import DIGEST_LENGTH, env_label, plain_name

    text = json.dumps(identity_of(plan, space), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
    env = plain_name(env_label(str(plan.fixed["env"])))
    return Path("runs/tune") / f"{env}__{short_name(plan.agent)}__{digest}"


def whole_windows(study: "Study", plan: "Plan") -> str:
    """Says how many of a trial's steps are trained, if a part of a window is left out that counts.

    Nothing is said where the length of a window is searched, or adapts itself.
    """
    from pgtoolkit.scripts.cli.registry import load_agent
    from pgtoolkit.scripts.train import LEFT_OUT

    names = ("num_envs", "n_steps")
    defaults = load_agent(plan.agent)[1]()
    searched = any(dimension.name in names for dimension in study.space)
    if searched or hasattr(defaults, "horizon_max"):
        return ""
    window = math.prod(int(plan.fixed.get(name, getattr(defaults, name))) for name in names)
    rest = plan.total_steps % window
    if rest <= LEFT_OUT * plan.total_steps:
        return ""
    trained = plan.total_steps - rest
    return f", of which {trained:,} are trained, in whole windows of {window:,}"


def opening(study: "Study", plan: "Plan", options: TuneArguments) -> str:
    """The first lines: where the study is, what is searched, and how far it is."""
    lines = [f"study: {study.root}"]
    lines += [f"  searched: {dimension.text}" for dimension in study.space]
    steps = f"{plan.total_steps:,} steps with {plan.seeds_text}"
    lines.append(f"  a trial: {steps}{whole_windows(study, plan)}")
    begun = len(study.trials)
    if begun:
        lines.append(f"  {begun} of {options.trials} trials were begun before")
    return "\n".join(lines)


def finish(study: "Study", plan: "Plan", options: TuneArguments) -> None:
    """Writes the files.

    Raises:
        SystemExit: with 1, if no trial is complete.
    """
    from pgtoolkit.scripts.cli.streams import flush
    from pgtoolkit.scripts.cli.streams import report as report_error
    from pgtoolkit.scripts.tuning.results import as_dict, write_best
    from pgtoolkit.scripts.tuning.view import counts_text

    if options.json is not None:
        write_json(options.json, as_dict(study, plan))
    write_best(study, plan)
    if study.best is None:
        flush()
        report_error(
            f"error: no trial is complete ({counts_text(study.trials)}): the lines above say why "
            f"they failed, and {study.root / 'logs'} has their output"
        )
        raise SystemExit(1)


def help_of(agent_name: str) -> str:
    """The help of the command with an agent: its options, and what is searched by default."""
    from pgtoolkit.scripts.cli.registry import load_agent
    from pgtoolkit.scripts.tuning.space import searched_settings

    lines = ["  nothing: --tune says which settings are"]
    if not names_own_agent(agent_name):
        space = searched_settings(agent_name, load_agent(agent_name)[1](), (), ())
        lines = [f"  {dimension.text}" for dimension in space]
    return "\n".join(
        (
            command_help(f"tune {agent_name}", TuneArguments),
            "\nsearched by default:",
            *lines,
            f"\nsettings that all trials have: see `pgtoolkit train {agent_name} --help`",
        )
    )


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
