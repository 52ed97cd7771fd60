"""``scripts/studies/mujoco_gradients.py``: errors of the MuJoCo adapter's gradients, in Markdown.

The gradient of an 8-step return by every action is compared with central differences of the return
of Gymnasium's own environment. Its output is a table of ``docs/environments.md``.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import final

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import require_writable, write_json
from pgtoolkit.scripts.cli.formatting import markdown_row


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class MuJoCoGradientsArguments:
    """Measures the errors of the MuJoCo adapter's gradients."""

    envs: tuple[str, ...] = ()
    """Ids of the environments. Default: Gymnasium's eleven v5 environments."""
    seeds: int = 3
    """Number of starts and action sequences of each environment."""
    first_seed: int = 0
    """The first of the seeds."""
    horizon: int = 8
    """Number of steps of the return."""
    json: Path | None = None
    """File for the results of each case."""

    def __post_init__(self) -> None:
        conditions = {
            "seeds": (self.seeds >= 1, "at least 1"),
            "horizon": (self.horizon >= 1, "at least 1"),
        }
        require_options(self, conditions)


def run(arguments: Sequence[str]) -> None:
    """Prints the table, after a line for each case that is wrong.

    Raises:
        RequestError: the request is wrong, mujoco is not installed, or the file cannot be written.
    """
    options = parse(MuJoCoGradientsArguments, arguments, command="studies/mujoco_gradients")
    if options.json is not None:
        require_writable(options.json, "--json")
    import torch

    from pgtoolkit.envs.adapters.mujoco.snapshot import import_mujoco
    from pgtoolkit.scripts.tables.mujoco_rows import ENVS, HEADINGS, measure, starts_of, table

    torch.set_num_threads(1)
    print(f"mujoco {import_mujoco().__version__}, {options.horizon} steps, {options.seeds} seeds\n")
    cases = []
    for name in options.envs or ENVS:
        for start in starts_of(name):
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                cases.append(measure(name, start, seed, options.horizon))
                if cases[-1].outcome == "wrong":
                    print(f"wrong: {cases[-1]}", flush=True)
    for row in (HEADINGS, ["---"] * len(HEADINGS), *table(cases)):
        print(markdown_row(row))
    if options.json is not None:
        write_json(options.json, [dataclasses.asdict(case) for case in cases])


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
