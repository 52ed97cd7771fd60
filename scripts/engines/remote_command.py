"""A command as it is sent to another machine, which has the same files."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from pgtoolkit.scripts.engines.local import Child
from pgtoolkit.training.run_folder import RunFolder

SECONDS_BETWEEN_POLLS = 0.1
RUN_DIR = "--run-dir"


@final
@dataclasses.dataclass
class RemoteCommand:
    """``pgtoolkit ARGUMENTS`` in a child process of the one that calls this.

    A training whose folder has a checkpoint, because it was begun on a machine that was lost, is
    resumed. What ends the caller, ends the child as a signal does: it writes a checkpoint.
    """

    arguments: Sequence[str]
    log: Path
    folder: Path
    """Where it was asked for; relative paths begin there."""
    _child: Child | None = None

    def __call__(self) -> int:
        """Runs it; returns the exit code, or minus the signal."""
        self._child = Child.start(self._going_on(), self.folder / self.log, self.folder)
        try:
            # In steps, because an interrupt by Ray does not reach a wait of the system's.
            while not self._child.ended():
                time.sleep(SECONDS_BETWEEN_POLLS)
        finally:
            self._stop()
        return self._child.wait()

    def checkpoint(self, *_: Any) -> Any:
        """What submitit calls before the time of a job is over, or another job takes its place."""
        import submitit

        self._stop()
        again = RemoteCommand(self.arguments, self.log, self.folder)
        return submitit.helpers.DelayedSubmission(again)

    def _stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child.wait()

    def _going_on(self) -> list[str]:
        arguments = list(self.arguments)
        if arguments[0] != "train":
            return arguments
        place = arguments[arguments.index(RUN_DIR) + 1]
        run = RunFolder(self.folder / place)
        begun = run.config_file.exists() and run.resume_file.exists()
        return ["resume", place] if begun else arguments
