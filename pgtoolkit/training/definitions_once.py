"""The definitions of the tags, once for all runs that lie side by side."""

import contextlib
from pathlib import Path

FILE_NAME = "tags.md"
"""The definitions in the folder of the run whose TensorBoard text has them."""


def holder_of_definitions(path: Path) -> Path:
    """The run beside ``path``, or that run itself, whose text in TensorBoard defines the tags.

    TensorBoard shows the texts of all runs of a folder one below the other. So the first run there
    has the definitions, and the file ``tags.md`` says that it has. If it is taken away, the next
    run to begin or to be resumed has them.

    Args:
        path: a run's folder.
    """
    path = path.absolute()
    if (path / FILE_NAME).exists():
        return path
    with contextlib.suppress(OSError):  # a folder above that cannot be read
        beside = sorted(path.parent.glob(f"*/{FILE_NAME}"))
        return beside[0].parent if beside else path
    return path
