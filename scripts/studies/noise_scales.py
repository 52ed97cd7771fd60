"""``scripts/studies/noise_scales.py RUN [RUN ...]``: how many samples an update can use.

Prints a table of ``docs/scaling.md`` from the TensorBoard events of runs. It trains nothing.
"""

import dataclasses
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
"""Parts of a run, of equal numbers of measurements, whose medians are compared."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseScalesArguments:
    """Prints the noise scale V / U of each gradient that runs measured.

    It is the number of samples with which an update has an SNR of 1; many more add little.
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
    least: float
    """Least and greatest of the medians of the run's parts; NaN where no measurement has one."""
    greatest: float
    known: int
    """Measurements with a noise scale: those whose running mean of the signal is positive."""
    measurements: int


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
    heads = ("run", "gradient", "samples measured", "noise scale", "known in")
    print("\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines]))


def noise_scales(scalars: Scalars) -> Iterator[NoiseScale]:
    """The noise scale of each gradient that a run measured.

    Args:
        scalars: the run's, by tag.
    """
    followed = followed_of(scalars)
    for tag in sorted(filter(is_variance, scalars)):
        estimator = tag.split("/")[1]
        _, scales = scalars.get(f"gradient/{estimator}/noise_scale", ([], []))
        _, samples = scalars["gradient/trajectories"]
        parts = [np.median(part) for part in np.array_split(scales, PARTS) if len(part)]
        yield NoiseScale(
            estimator,
            estimator == followed,
            statistics.median(samples),
            float(min(parts, default=np.nan)),
            float(max(parts, default=np.nan)),
            len(scales),
            len(scalars[tag][0]),
        )


def cells(row: NoiseScale) -> list[str]:
    """The cells of a row of the table after its run."""
    ends = dict.fromkeys(format_number(end, 2) for end in (row.least, row.greatest))
    return [
        row.estimator + (", followed" if row.followed else ""),
        format_number(row.samples, 5),
        " to ".join(ends),
        f"{row.known:,} of {row.measurements:,}",
    ]


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
