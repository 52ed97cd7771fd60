"""``scripts/studies/environment_table.py``: quality of each environment's gradient, in Markdown.

Its output is the table of ``docs/environments.md``: the environment's ``GradientInfo``, and the
horizon up to which the pathwise gradient of a fresh policy is usable, by the measurement of
``pgtoolkit variance``.
"""

import dataclasses
from collections.abc import Sequence
from typing import final

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.formatting import markdown_row
from pgtoolkit.scripts.cli.registry import registered_env_ids

MIN_TRAJECTORIES = 20


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvironmentTableArguments:
    """Measures up to which horizon each environment's pathwise gradient is usable."""

    envs: tuple[str, ...] = ()
    """Names of the environments. Default: all of this package."""
    trajectories: int = 1000
    """Number of trajectories at each horizon, at least 20."""
    seed: int = 0
    """Seed of all random numbers: policy weights, start states and action noise."""

    def __post_init__(self) -> None:
        enough = self.trajectories >= MIN_TRAJECTORIES
        require_options(self, {"trajectories": (enough, f"at least {MIN_TRAJECTORIES}")})


def run(arguments: Sequence[str]) -> None:
    """Prints the table, each row as soon as it is measured.

    Raises:
        RequestError: there is no such environment, or it has no gradient.
    """
    options = parse(EnvironmentTableArguments, arguments, command="studies/environment_table")
    from pgtoolkit.scripts.tables.environment_rows import HEADINGS, environment_row

    print(markdown_row(HEADINGS), markdown_row(["---"] * len(HEADINGS)), sep="\n", flush=True)
    for name in options.envs or registered_env_ids():
        cells = environment_row(name, options.trajectories, options.seed)
        print(markdown_row(cells), flush=True)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
