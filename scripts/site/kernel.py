"""What the kernels that execute the pages do differently from a notebook's."""

import os
import subprocess
from typing import Any

DOCS_VARIABLES = ("FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE")
"""Variables by which a kernel asks its children for colours and progress bars."""


def prepare(shell: Any) -> None:
    """Lets ``!command`` print plain lines, as into a pipe, in the place of a terminal's screen.

    Args:
        shell: the kernel's ``InteractiveShell``.
    """
    for name in DOCS_VARIABLES:
        os.environ.pop(name, None)
    shell.system = lambda command: print_output(shell.var_expand(command, depth=1))


def print_output(command: str) -> None:
    """Runs a command and prints its output and errors; its exit code does not matter."""
    done = subprocess.run(
        command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(done.stdout, end="")
