"""``scripts/studies/reference_table.py``: measured variance of each estimator beside the exact one.

On three problems whose variances are known: a Gaussian expectation of ``x^2``, a Bernoulli
expectation, and the linear-quadratic system. Its output are the tables of ``docs/estimators.md``.
"""

import dataclasses
from collections.abc import Sequence
from typing import final

from pgtoolkit.scripts.cli.arguments import parse, require_options

MIN_SAMPLES = 100


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceTableArguments:
    """Measures the variance of every estimator on problems where it is known exactly."""

    samples: int = 500_000
    """Number of samples for each estimator, at least 100; for the linear-quadratic system, number
    of trajectories."""
    seed: int = 0
    """Seed of all random numbers."""

    def __post_init__(self) -> None:
        enough = self.samples >= MIN_SAMPLES
        require_options(self, {"samples": (enough, f"at least {MIN_SAMPLES}")})


def run(arguments: Sequence[str]) -> None:
    """Prints the tables in Markdown.

    Raises:
        RequestError: the request is wrong.
    """
    options = parse(ReferenceTableArguments, arguments, command="studies/reference_table")
    import torch

    from pgtoolkit.scripts.tables.estimator_rows import (
        bernoulli_rows,
        gaussian_rows,
        lqg_rows,
        table,
    )

    torch.set_num_threads(1)
    size = options.samples, options.seed
    for title, rows in (
        ("E[x^2], x ~ N(1, 1)", gaussian_rows(*size)),
        ("E[(z - 0.49)^2], z on with probability sigmoid(1)", bernoulli_rows(*size)),
        ("Linear-quadratic system", lqg_rows(*size)),
    ):
        print(f"\n{title}\n\n{table(list(rows))}")


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
