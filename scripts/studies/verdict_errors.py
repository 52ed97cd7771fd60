"""``scripts/studies/verdict_errors.py``: how often the verdict on an environment is wrong.

On problems whose right verdict is known exactly. Its output is the table of verdicts in
``docs/estimators.md``.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import final

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import require_writable

MIN_TRAJECTORIES = 10


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class VerdictErrorsArguments:
    """Measures how often the verdict of `pgtoolkit variance` is wrong, silent or a false alarm."""

    seeds: int = 400
    """Number of batches of each problem."""
    trajectories: int = 1000
    """Number of trajectories in a batch, at least 10."""
    json: Path | None = None
    """File for the outcomes. What it already holds is not measured again."""

    def __post_init__(self) -> None:
        conditions = {
            "seeds": (self.seeds >= 1, "at least 1"),
            "trajectories": (
                self.trajectories >= MIN_TRAJECTORIES,
                f"at least {MIN_TRAJECTORIES}",
            ),
        }
        require_options(self, conditions)


def run(arguments: Sequence[str]) -> None:
    """Prints the table in Markdown.

    Raises:
        RequestError: the request is wrong, or the file cannot be written.
    """
    options = parse(VerdictErrorsArguments, arguments, command="studies/verdict_errors")
    if options.json is not None:
        require_writable(options.json, "--json")
    import torch

    from pgtoolkit.scripts.tables.verdict_problems import problems
    from pgtoolkit.scripts.tables.verdict_rows import study, table

    torch.set_num_threads(1)
    found = study(problems(), options.trajectories, options.seeds, options.json)
    print(f"{options.seeds} batches of {options.trajectories} trajectories, in per cent\n")
    print(table(problems(), found))


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
