"""``scripts/studies/resume_exact.py``: interrupted and resumed runs against unstopped ones.

Every agent is trained on every environment, stopped by a signal at a random update, and resumed.
All tensors and values of the last checkpoint, the best policy, and the scalars that TensorBoard
shows must then be those of a run that was not stopped, bit for bit. The exit code is 1 if they are
not.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, final

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import require_writable
from pgtoolkit.scripts.cli.registry import AGENTS, find_agent


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResumeExactArguments:
    """Compares interrupted and resumed runs with runs that never stopped, bit for bit."""

    agents: tuple[str, ...] = ()
    """The agents. Default: all."""
    envs: tuple[str, ...] = ()
    """Ids of the environments. Default: nine of Gymnasium's and this package's."""
    signals: tuple[str, ...] = ("INT", "TERM", "KILL", "HUP")
    """Names of the signals that stop a run."""
    compile: tuple[Literal["never", "always"], ...] = ("never", "always")
    """Values of --compile, for agents that have it in environments that can be compiled."""
    json: Path = Path("resume_exact.json")
    """File of the outcomes. Interruptions that it holds are not tried again."""
    seed: int = 0
    """Determines the updates at which runs are stopped."""
    timeout: float = 300.0
    """Seconds after which a command counts as hung and is stopped."""

    def __post_init__(self) -> None:
        known = ("INT", "TERM", "KILL", "HUP")
        fits = all(name in known for name in self.signals)
        require_options(
            self,
            {
                "signals": (fits, f"names among {', '.join(known)}"),
                "timeout": (self.timeout > 0, "above 0"),
            },
        )


def run(arguments: Sequence[str]) -> None:
    """Tries the interruptions that the file does not hold; exits with 1 on a difference.

    Raises:
        RequestError: an agent is unknown, or the file cannot be used.
    """
    options = parse(ResumeExactArguments, arguments, command="studies/resume_exact")
    for agent in options.agents:
        find_agent(agent)
    require_writable(options.json, "--json")
    import torch

    from pgtoolkit.scripts import resume, train  # noqa: F401  # so that children have them
    from pgtoolkit.scripts.reliability import resume_rows as rows_of

    torch.set_num_threads(1)
    rows = rows_of.read_rows(options.json)
    agents, envs = options.agents or tuple(AGENTS), options.envs or rows_of.ENVS
    for setup in rows_of.setups(agents, envs, options.compile):
        done = {row.signal for row in rows if row.setup == setup}
        left = [name for name in options.signals if name not in done]
        for row in rows_of.try_setup(setup, left, seed=options.seed, timeout=options.timeout):
            print(row.line, flush=True)
            rows.append(row)
            rows_of.write_rows(options.json, rows)
    print(rows_of.summary(rows))
    sys.exit(1 if any(row.outcome in ("different", "failed") for row in rows) else 0)


if __name__ == "__main__":
    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
