"""The ``start`` benchmark: how soon a command answers, and what an import costs."""

import functools
import subprocess
import sys

from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run

COMMAND = "import sys; from pgtoolkit.scripts.cli.main import main; sys.argv[1:] = {}; main()"
"""What the console script does."""

PEER = "import torch"

WORK = {
    "pgtoolkit --help": (COMMAND.format(["--help"]), 0.2),
    "pgtoolkit list": (COMMAND.format(["list"]), 0.2),
    "import pgtoolkit": ("import pgtoolkit", 1.1),
    "from pgtoolkit import *": ("from pgtoolkit import *", None),
}
"""Code, and the most it may take of the time of ``import torch``."""


def cases() -> list[Case]:
    """Processes of their own, from their start to their end."""
    return [
        Case(
            name,
            1,
            "starts",
            {OURS: functools.partial(side, code), PEER: functools.partial(side, PEER)},
            {} if most is None else {PEER: most},
            "at most",
        )
        for name, (code, most) in WORK.items()
    ]


def side(code: str) -> Run:
    """Runs the code in a Python of its own."""

    def run(index: int) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    return run
