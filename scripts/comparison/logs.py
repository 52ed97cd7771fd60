"""The folder for what the commands of a comparison print."""

from pathlib import Path

from pgtoolkit.scripts.cli.files import make_folder


def make_logs_folder(root: Path) -> Path:
    """Makes ``root/logs``, the folder for the output of the processes.

    Raises:
        RequestError: it cannot be made.
    """
    logs = root / "logs"
    make_folder(logs, "--run-dir")
    return logs
