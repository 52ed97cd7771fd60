"""The ``start`` benchmark: time of a command that only prints, and time of the import."""

import functools
import subprocess
import sys

from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run

COMMAND_CODE = "import sys; from pgtoolkit.scripts.cli.main import main; sys.argv[1:] = {}; main()"
"""Python code equivalent to the console script; the braces hold its arguments."""

PEER = "import torch"
"""Code of the peer, and its name."""

CODE_AND_TARGET = {
    "pgtoolkit --help": (COMMAND_CODE.format(["--help"]), 0.2),
    "pgtoolkit list": (COMMAND_CODE.format(["list"]), 0.2),
    "import pgtoolkit": ("import pgtoolkit", 1.1),
    "from pgtoolkit import *": ("from pgtoolkit import *", None),
}
"""Name to Python code, and the target for its time over that of ``import torch`` (None: none)."""


def cases() -> list[Case]:
    """A case for each piece of code, timed as a whole Python process."""
    return [
        Case(
            name,
            1,
            "starts",
            {
                OURS: functools.partial(process_side, code),
                PEER: functools.partial(process_side, PEER),
            },
            {} if target is None else {PEER: target},
            "at most",
        )
        for name, (code, target) in CODE_AND_TARGET.items()
    ]


def process_side(code: str) -> Run:
    """Runs the code in a new Python process."""

    def run(index: int) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    return run
