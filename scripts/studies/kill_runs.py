"""``scripts/studies/kill_runs.py``: kills runs at random, resumes them, and compares the result.

It proves that a run which is killed at any moment can be resumed, loses at most the update that was
under way, and ends with the same bytes and scalars as one that was left alone.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import require_writable, write_json

if TYPE_CHECKING:
    from pgtoolkit.scripts.reliability.killed_runs import KilledRunResult


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class KillRunsArguments:
    """Kills runs at random moments by SIGKILL, resumes them, and compares them with others.

    The runs save a checkpoint at every update, and half of the processes are slowed while they
    write. Needs a system with fork. Exit code 1 if anything is lost or differs from a run that was
    left alone.
    """

    kills: int = 200
    """Number of kills."""
    seed: int = 0
    """Seed of the moments, and of the first run."""
    agent: str = "shac"
    """The agent that is trained."""
    env: str = "pgtoolkit/Pendulum-v0"
    """The environment. Its state must be one that can be saved."""
    flags: str = "--compile never"
    """Further flags of `pgtoolkit train`, in one string: --flags="--batch-size 16"."""
    updates: int = 400
    """Updates of a run; there are as many runs as it takes."""
    json: Path | None = None
    """File for the counts and the violations."""

    def __post_init__(self) -> None:
        conditions = {
            "kills": (self.kills >= 1, "at least 1"),
            "updates": (self.updates >= 1, "at least 1"),
        }
        require_options(self, conditions)


def run(arguments: Sequence[str]) -> None:
    """Prints a line after every run, and a summary.

    Raises:
        RequestError: the request is wrong, or the file cannot be written.
        SystemExit: with code 1, if there is a violation.
    """
    options = parse(KillRunsArguments, arguments, command="studies/kill_runs")
    if options.json is not None:
        require_writable(options.json, "--json")
    import tempfile

    from pgtoolkit.scripts.reliability.forked_training import import_agent
    from pgtoolkit.scripts.reliability.killed_runs import KilledRunSettings, study

    import_agent(options.agent)
    settings = KilledRunSettings(
        options.agent, options.env, options.flags, options.updates, options.kills, options.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        result = study(settings, Path(folder), say)
    if options.json is not None:
        write_json(options.json, result.as_dict())
    print(summary(result))
    if result.violations:
        raise SystemExit(1)


def say(line: str) -> None:
    print(line, flush=True)


def summary(result: "KilledRunResult") -> str:
    """The closing lines."""
    lines = [
        f"{result.kills} kills, {result.slowed} of them of a process with slow writes; "
        f"{result.before_the_first_checkpoint} before the first checkpoint; "
        f"{result.unfinished_files} left a half-written file",
        f"{result.runs} runs resumed to their end and compared",
    ]
    lines += [f"violation: {violation}" for violation in result.violations]
    return "\n".join(lines if result.violations else [*lines, "nothing lost, nothing different"])


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
