"""Execution of the Python blocks of pages that are no notebooks."""

import contextlib
import io


def run_block(code: str, name: str) -> str:
    """Executes a block in a fresh namespace; returns what it prints.

    Args:
        code: the block.
        name: what a traceback calls it, such as the page and the line.

    Raises:
        AssertionError: what the block checks does not hold.
        Exception: whatever the block raises.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), {"__name__": "example"})
    return printed.getvalue()
