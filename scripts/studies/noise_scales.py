"""``scripts/studies/noise_scales.py RUN [RUN ...]``: how many samples an update can use.

Prints a table of ``docs/scaling.md`` from the TensorBoard events of runs. It trains nothing.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple, final

import numpy as np
import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.formatting import format_number
from pgtoolkit.scripts.comparison.scalars import Scalars, read_scalars
from pgtoolkit.training.history import followed_of, is_variance

PARTS = 5
"""Parts of a run, of equal numbers of measurements; each has a noise scale of its own."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseScalesArguments:
    """Prints the noise scale of each gradient that runs measured, in the five fifths of a run.

    It is the sum of the variances of a fifth over the sum of its signals: the number of samples
    with which an update has an SNR of 1. Many more add little.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folders of the runs."""


@final
class NoiseScale(NamedTuple):
    """The noise scale of one gradient over a run."""

    estimator: str
    followed: bool
    """Whether the optimiser follows this gradient."""
    samples: float
    """Samples of a measurement, the median."""
    scales: tuple[float, ...]
    """Of each part, from the beginning on; NaN where the signals have no positive sum."""


def run(arguments: Sequence[str]) -> None:
    """Prints the table.

    Raises:
        RequestError: no run was named, there is no such run, or one measured no gradient.
    """
    options = parse(NoiseScalesArguments, arguments, command="studies/noise_scales")
    if not options.runs:
        raise RequestError("name the folders of one run or more")
    from pgtoolkit.scripts.comparison.groups import env_of, opened

    lines = []
    for folder, config in opened(options.runs):
        found = list(noise_scales(read_scalars(folder.path)))
        if not found:
            raise RequestError(
                f"{folder.path} measured no gradient (--diagnostics-interval 0?), or has not begun"
            )
        name = f"`{config['agent']}`, {env_of(config)}"
        lines += [f"| {name} | {' | '.join(cells(row))} |" for row in found]
    heads = ("run", "gradient", "samples measured", "noise scale, beginning to end")
    print("\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines]))


def noise_scales(scalars: Scalars) -> Iterator[NoiseScale]:
    """The noise scale of each gradient that a run measured.

    Args:
        scalars: the run's, by tag.
    """
    followed = followed_of(scalars)
    for tag in sorted(filter(is_variance, scalars)):
        group, _, estimator = tag.removesuffix("/variance").rpartition("/")
        _, samples = scalars[f"{group}/trajectories"]
        sums = [
            [float(part.sum()) for part in np.array_split(values, PARTS) if len(part)]
            for _, values in (scalars[tag], scalars[f"{group}/{estimator}/signal"])
        ]
        probed = group.removeprefix("gradient").removeprefix("/")
        yield NoiseScale(
            f"{estimator}, {probed}" if probed else estimator,
            not probed and estimator == followed,
            statistics.median(samples),
            tuple(v / u if u > 0 else math.nan for v, u in zip(*sums, strict=True)),
        )


def cells(row: NoiseScale) -> list[str]:
    """The cells of a row of the table after its run."""
    return [
        row.estimator + (", followed" if row.followed else ""),
        format_number(row.samples, 5),
        ", ".join(format_number(scale, 2) for scale in row.scales),
    ]


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
