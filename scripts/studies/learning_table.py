"""``scripts/studies/learning_table.py``: returns of shac's settings over environments and seeds.

The runs are kept in a JSON file. A study that is stopped goes on where it was, and one that is done
can be given more seeds. Its output is a table of ``docs/results.md``.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import final

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import require_writable


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningTableArguments:
    """Trains agents with several settings on several environments, and compares the returns."""

    json: Path = Path("learning.json")
    """File of the runs: a JSON list of one object each. Runs that it holds are not repeated."""
    settings: tuple[str, ...] = ("default",)
    """Names of the settings to run; see SETTINGS in scripts/tables/learning_rows.py."""
    envs: tuple[str, ...] = ()
    """Names of the environments. Default: the fourteen of the study."""
    seeds: int = 10
    """Number of runs of each setting on each environment, with the seeds 0, 1, ..."""
    total_steps: int = 300_000
    """Environment steps of a run."""

    def __post_init__(self) -> None:
        require_options(self, {"seeds": (self.seeds >= 0, "at least 0")})


def run(arguments: Sequence[str]) -> None:
    """Makes the runs that are missing, then prints the table of all runs in the file.

    Raises:
        RequestError: no such setting or environment, or the file cannot be used.
    """
    options = parse(LearningTableArguments, arguments, command="studies/learning_table")
    require_writable(options.json, "--json")
    from pgtoolkit.scripts.tables.learning_rows import ENVS, as_markdown, complete, read_runs, table

    envs = options.envs or ENVS
    for done in complete(options.json, options.settings, envs, options.seeds, options.total_steps):
        returns = f"{done.end:.1f} at the end, {done.best:.1f} at best"
        print(f"{done.setting}: {done.env} seed {done.seed}: {returns}", flush=True)
    print(as_markdown(table(read_runs(options.json))))


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
