"""``scripts/studies/third_party.py``: other packages' environments, tried one by one.

Each is checked (``check-env``), trained for a few windows (``train ppo``) and evaluated, by the
commands themselves in processes of their own. The outcomes are kept in a JSON file, so packages
that cannot be installed together are tried from one Python installation after the other. The output
is the table of ``docs/third_party.md``.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import final

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import require_writable


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ThirdPartyArguments:
    """Tries environments of other packages: check-env, train ppo, evaluate."""

    json: Path = Path("third_party.json")
    """File of the outcomes: a JSON list of one object for each environment. Environments that it
    holds are not tried again."""
    envs: tuple[str, ...] = ()
    """Ids of the environments. Default: those of scripts/tables/third_party_rows.py whose packages
    are installed."""
    timeout: float = 300.0
    """Seconds after which a command counts as hung and is stopped."""

    def __post_init__(self) -> None:
        require_options(self, {"timeout": (self.timeout > 0, "above 0")})


def run(arguments: Sequence[str]) -> None:
    """Tries the environments that the file does not hold, then prints the table of the file.

    Raises:
        RequestError: no such environment in the list, or the file cannot be used.
    """
    options = parse(ThirdPartyArguments, arguments, command="studies/third_party")
    require_writable(options.json, "--json")
    from pgtoolkit.scripts.tables.third_party_rows import (
        as_markdown,
        complete,
        find_rows,
        read_trials,
    )

    for done in complete(options.json, find_rows(options.envs), options.timeout):
        print(f"{done.command}: {done.check}; {done.train}; {done.evaluate}", flush=True)
    print(as_markdown(read_trials(options.json)))


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
