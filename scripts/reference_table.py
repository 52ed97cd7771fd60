"""``python scripts/reference_table.py``: measured variance of each estimator beside the exact one.

Three problems whose variances are known: a Gaussian expectation of ``x^2``, a switch, and the
linear-quadratic system. The tables of ``docs/estimators.md`` are its output.
"""

import dataclasses
from collections.abc import Sequence
from typing import final

import torch

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.tables.estimator_rows import Row, gaussian_rows, lqg_rows, switch_rows

ROUNDING = 1e-20


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class TableArguments:
    """Measures the variance of every estimator on problems where it is known exactly."""

    samples: int = 500_000
    """Of each estimator; trajectories of the linear-quadratic system."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        if self.samples < 100:
            raise RequestError(f"--samples must be at least 100, not {self.samples}")


def run(arguments: Sequence[str]) -> None:
    """Prints the tables in Markdown.

    Raises:
        RequestError: the request is wrong.
    """
    options = parse(TableArguments, arguments, command="reference_table")
    torch.set_num_threads(1)
    for title, rows in (
        ("E[x^2], x ~ N(1, 1)", gaussian_rows(options.samples, options.seed)),
        (
            "E[(z - 0.49)^2], z on with probability sigmoid(1)",
            switch_rows(options.samples, options.seed),
        ),
        ("Linear-quadratic system", lqg_rows(options.samples, options.seed)),
    ):
        print(f"\n{title}\n\n{table(list(rows))}")


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| estimator | by | gradient | error of the mean, s.e. | exact variance | measured |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        exact = "" if row.exact is None else f"{row.exact:.5g}"
        measured = f"{row.variance:.4g} ± {row.variance_error:.1g}"
        cells = (
            row.estimator,
            row.parameter,
            f"{row.true_gradient:.5g}",
            f"{row.mean_error:+.1f}",
            exact,
            measured if row.variance > ROUNDING else "0",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
