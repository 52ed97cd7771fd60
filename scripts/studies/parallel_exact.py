"""``scripts/studies/parallel_exact.py``: runs of several processes against runs of one.

Every agent is trained with each number of processes. All tensors and values from which the run
would go on, the policies, and all scalars in TensorBoard must be those of one process, bit for bit.
Then processes are killed, and the runs go on with another number of processes. The exit code is 1
if anything differs.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import final

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.registry import AGENTS, find_agent


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelExactArguments:
    """Compares runs of several processes with runs of one process, bit for bit."""

    agents: tuple[str, ...] = ()
    """The agents. Default: all."""
    envs: tuple[str, ...] = ()
    """The environments. Default: Pendulum-v1, InvertedPendulum-v5 and pgtoolkit/Pendulum-v0; for
    agents that need a gradient pgtoolkit/Pendulum-v0, Hopper2D-v0 and CartPoleSwingUp-v0."""
    processes: tuple[int, ...] = (2, 4)
    """Numbers of processes."""
    updates: int = 100
    """Updates of a run."""
    kills: int = 0
    """Runs of each agent's first environment in which a process is killed at a random update."""
    seed: int = 0
    """Determines which process is killed, and when."""
    timeout: float = 600.0
    """Seconds after which a run counts as hung and is stopped."""

    def __post_init__(self) -> None:
        require_options(
            self,
            {
                "processes": (all(count >= 2 for count in self.processes), "numbers of at least 2"),
                "updates": (self.updates >= 3, "at least 3"),
                "timeout": (self.timeout > 0, "above 0"),
            },
        )


def run(arguments: Sequence[str]) -> None:
    """Prints a line for each comparison; exits with 1 on a difference.

    Raises:
        RequestError: an agent is unknown, or a run of one process fails.
    """
    options = parse(ParallelExactArguments, arguments, command="studies/parallel_exact")
    for agent in options.agents:
        find_agent(agent)
    import tempfile

    from pgtoolkit.scripts.reliability import parallel_runs
    from pgtoolkit.scripts.reliability.forked_training import import_agent
    from pgtoolkit.scripts.reliability.resume_rows import setups

    bad = 0
    for agent in options.agents or tuple(AGENTS):
        import_agent(agent)
        envs = options.envs or parallel_runs.envs_of(agent)
        for place, env in enumerate(envs):
            setup = setups([agent], [env], ["never"])[0]
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                for count, found in parallel_runs.compared(
                    setup, options.processes, options.updates, folder, options.timeout
                ):
                    bad += _say(f"{agent} {env}, {count} processes", found)
                for number in range(options.kills if place == 0 else 0):
                    before = options.processes[number % len(options.processes)]
                    after = (1, *options.processes)[number % (1 + len(options.processes))]
                    found = parallel_runs.killed(
                        setup,
                        (before, after),
                        options.updates,
                        options.seed + number,
                        folder,
                        options.timeout,
                    )
                    bad += _say(f"{agent} {env}, {before} processes, killed, then {after}", found)
    sys.exit(1 if bad else 0)


def _say(what: str, found: Sequence[str]) -> bool:
    """Prints the outcome of a comparison; whether anything differs."""
    outcome = f"{len(found)} differences: {'; '.join(found[:4])}" if found else "equal"
    print(f"{what}: {outcome}", flush=True)
    return bool(found)


if __name__ == "__main__":
    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
