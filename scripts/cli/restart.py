"""A training that torchrun starts again after one of its processes failed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pgtoolkit import parallel
from pgtoolkit.errors import RequestError
from pgtoolkit.training.run_folder import GIVEN, RunFolder
from pgtoolkit.training.storage.new_folder import never_began

if TYPE_CHECKING:
    from pgtoolkit.scripts.cli.experiment import RunSettings


def require_folder_to_restart(run_dir: str | None) -> None:
    """Raises where torchrun may start the training again, and it would not find its run.

    Raises:
        RequestError: no folder is given.
    """
    if run_dir is None and parallel.may_restart():
        raise RequestError(
            "with torchrun --max-restarts a training that is started again goes on from its "
            "folder, so it must know it: give --run-dir DIR"
        )


def goes_on(run_dir: str, settings: "RunSettings") -> bool:
    """Whether this is a training that was started again, with a checkpoint in its folder.

    Raises:
        RequestError: the folder holds the run of other settings.
    """
    return parallel.from_process(0, lambda: _goes_on(Path(run_dir), settings), "restart")


def _goes_on(folder: Path, settings: "RunSettings") -> bool:
    begun = os.path.lexists(RunFolder(folder).config_file) and not never_began(folder)
    if not (parallel.restarts() and begun):
        return False
    run, config = RunFolder.open(str(folder))
    wanted = settings.as_dict()
    kept = {name: value for name, value in config.items() if name in wanted}
    differing = [k for k, v in wanted.items() if (kept | config.get(GIVEN, {})).get(k) != v]
    if differing:
        raise RequestError(
            f"{run.path} holds the run of other settings ({', '.join(differing)}): give another "
            "--run-dir"
        )
    return True
