"""``pgtoolkit check-env ENV``: finds mistakes in an environment and its gradient."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.limits import MAX_THREADS
from pgtoolkit.scripts.cli.arguments import parse, parse_json_object
from pgtoolkit.scripts.cli.files import require_writable, write_json
from pgtoolkit.scripts.cli.registry import AGENTS, load_agent

if TYPE_CHECKING:
    from pgtoolkit.envs.checks.agents import AgentNeeds

MAX_SAMPLES = 10_000

MAX_SECONDS = 10**6


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckEnvArguments:
    """Checks an environment, and its gradient if it has one.

    Each finding is a pass, a warning or a fault, or says that something was not checked, and why.
    Warnings and faults say what they mean and what to do. Exit 1 if there is a fault; 0 if there is
    none, also with warnings and with things that were not checked; 2 if the request is wrong. In a
    test of your own call `pgtoolkit.envs.checks.check_env.check_env(env)`.
    """

    env: Annotated[str, tyro.conf.Positional]
    """An id, or path/to/file.py:Class."""
    env_kwargs: str = "{}"
    """JSON object of keyword arguments for the environment's constructor."""
    gym_wrappers: str = "{}"
    """JSON object of Gymnasium's wrappers for an ordinary environment, as in `pgtoolkit train`."""
    differentiate: Literal["auto", "none", "finite-difference", "mujoco", "model"] = "auto"
    """auto: check the gradient if the environment has one; none: check it as an ordinary
    environment only; an adapter's name: check the gradient that the adapter gives."""
    adapter_kwargs: str = "{}"
    """JSON object of arguments for the adapter that --differentiate names or auto tries."""
    seed: int = 0
    """Seed of everything random."""
    samples: int = 64
    """Points of random play at which derivatives are compared; fewer if steps are slow."""
    seconds: float = 3.0
    """About how long each of the longer checks may take."""
    threads: int = 1
    """CPU threads that torch uses."""
    json: Path | None = None
    """Write the findings to this file, as a list of one object for each finding."""

    def __post_init__(self) -> None:
        checks = {
            "seed": (0 <= self.seed < 2**31, "at least 0 and below 2^31"),
            "samples": (1 <= self.samples <= MAX_SAMPLES, f"from 1 to {MAX_SAMPLES}"),
            "seconds": (0 < self.seconds <= MAX_SECONDS, f"above 0, at most {MAX_SECONDS:,}"),
            "threads": (1 <= self.threads <= MAX_THREADS, f"from 1 to {MAX_THREADS:,}"),
        }
        for name, (valid, allowed) in checks.items():
            if not valid:
                raise RequestError(f"--{name} must be {allowed}, not {getattr(self, name)}")


def run(arguments: Sequence[str]) -> None:
    """Checks the environment that the arguments name, and prints the findings.

    Raises:
        RequestError: there is no such environment, it cannot be made, or the file cannot be
            written.
        SystemExit: with 1, if there is a fault.
    """
    options = parse(CheckEnvArguments, arguments, command="check-env")
    if options.json is not None:
        require_writable(options.json, "--json")
    kwargs = parse_json_object(options.env_kwargs, "--env-kwargs")
    adapter = parse_json_object(options.adapter_kwargs, "--adapter-kwargs")
    wrappers = parse_json_object(options.gym_wrappers, "--gym-wrappers")

    import torch

    from pgtoolkit.envs.checks.check_env import check_env
    from pgtoolkit.envs.checks.finding import has_fault
    from pgtoolkit.envs.registry.resolve import find_env
    from pgtoolkit.scripts.cli.check_env_report import CheckProgress, print_findings

    torch.set_num_threads(options.threads)
    source = find_env(options.env, kwargs, wrappers)
    with CheckProgress() as progress:
        findings = check_env(
            source,
            differentiate=options.differentiate,
            adapter_kwargs=adapter,
            seed=options.seed,
            samples=options.samples,
            seconds=options.seconds,
            agents=needs_of_agents(),
            progress=progress.begin,
        )
    # The file is written first: printing fails if the reader of a pipe stops early.
    if options.json is not None:
        write_json(options.json, [dataclasses.asdict(finding) for finding in findings])
    print_findings(source.name, findings, progress.seconds)
    if options.json is not None:
        print(f"json: {options.json}")
    if has_fault(findings):
        raise SystemExit(1)


def needs_of_agents() -> "dict[str, AgentNeeds]":
    """The default settings of each agent of the command line, and whether it needs a gradient."""
    from pgtoolkit.envs.checks.agents import AgentNeeds

    classes = {name: load_agent(name) for name in AGENTS}
    return {
        name: AgentNeeds(config(), agent.needs_gradient)
        for name, (agent, config) in classes.items()
    }


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
