"""``scripts/studies/interval_coverage.py``: how often the 95 % intervals cover the truth.

For batches of 4 to 1000 gradients from laws whose variance and signal are known. Its output is the
table of intervals in ``docs/estimators.md``.
"""

import dataclasses
from collections.abc import Sequence
from typing import final

from pgtoolkit.scripts.cli.arguments import parse, require_options

MIN_REPEATS = 10


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class IntervalCoverageArguments:
    """Measures how often the intervals of variance and signal cover the truth."""

    repeats: int = 1000
    """Number of batches of each size from each law, at least 10; half of them for batches of 256,
    and a third for batches of 1000."""
    seed: int = 0
    """Seed of all random numbers."""

    def __post_init__(self) -> None:
        enough = self.repeats >= MIN_REPEATS
        require_options(self, {"repeats": (enough, f"at least {MIN_REPEATS}")})


def run(arguments: Sequence[str]) -> None:
    """Prints the table in Markdown.

    Raises:
        RequestError: the request is wrong.
    """
    options = parse(IntervalCoverageArguments, arguments, command="studies/interval_coverage")
    import torch

    from pgtoolkit.scripts.tables.coverage_rows import coverage_laws, coverage_rows, table

    torch.set_num_threads(1)
    print("Coverage in per cent (share of batches with an interval, in per cent)\n")
    print(table(list(coverage_rows(coverage_laws(), options.repeats, options.seed))))


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
