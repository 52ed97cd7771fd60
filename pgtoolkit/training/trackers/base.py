"""What an experiment tracker is to a run, and why its failures do not end the run."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, final

from pgtoolkit.errors import bounded
from pgtoolkit.training.storage.files import read_regular, replace_file

LOG = logging.getLogger("pgtoolkit")

TrackerName = Literal["none", "wandb", "trackio", "mlflow"]

DEFAULT_PROJECT = "pgtoolkit"

IDENTITY_FILE, MAX_IDENTITY_BYTES = "tracking.json", 4096
"""The file of a run's folder that says under which name each tracker knows the run."""

IDENTITY = re.compile(r"[\w.@=+-]{1,200}")


@final
class TrackedRun(NamedTuple):
    """A run that a tracker is to follow."""

    folder: Path
    settings: Mapping[str, Any]
    """All settings of the run; they become the tracked run's configuration."""
    project: str | None
    """The tracker's project or experiment; None for the tracker's own choice."""
    identity: str | None
    """What the tracker called the run before, if it goes on."""


class Tracker(Protocol):
    """A client of an experiment tracker. Any method may raise anything."""

    def begin(self, run: TrackedRun) -> str:
        """Begins a tracked run, or goes on with that of ``run.identity``; returns its identity."""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Adds scalars at a number of environment steps. It must not wait for a network."""

    def finish(self, *, failed: bool) -> None:
        """Ends the tracked run, after everything was handed over.

        Args:
            failed: whether the run ended by an error or a signal.
        """


@final
class Untracked:
    """The tracker of a run that none follows."""

    def begin(self, run: TrackedRun) -> str:
        return ""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        pass

    def finish(self, *, failed: bool) -> None:
        pass


@final
class Guarded:
    """A tracker whose first error is a warning, after which it is asked for nothing more.

    A training is worth more than its copy: the run goes on, and TensorBoard has everything.

    Args:
        name: the tracker's, for the warning.
        tracker: the client.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self._tracker, self._working = name, tracker, True

    def begin(self, run: TrackedRun) -> str:
        known = read_identities(run.folder)
        run = run._replace(identity=known.get(self.name))
        found: list[str] = []
        self._try(lambda: found.append(self._tracker.begin(run)))
        if not found:
            return ""
        self._try(lambda: write_identities(run.folder, known | {self.name: found[0]}))
        return found[0]

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._try(lambda: self._tracker.log(scalars, step))

    def finish(self, *, failed: bool) -> None:
        self._try(lambda: self._tracker.finish(failed=failed))

    def _try(self, call: Callable[[], object]) -> None:
        if not self._working:
            return
        try:
            call()
        except Exception as error:
            self._working = False
            LOG.warning(
                "%s fails and gets nothing more of this run; the run itself and TensorBoard are "
                "not affected (%s: %s)",
                self.name,
                type(error).__name__,
                bounded(error)[:300],
            )


def read_identities(folder: Path) -> dict[str, str]:
    """Tracker to the identity under which it knows the run of a folder.

    Anybody may have written the file: only plain words are taken from it, and what is damaged is
    left out.
    """
    try:
        data = read_regular(folder / IDENTITY_FILE, inside=folder, limit=MAX_IDENTITY_BYTES)
        found = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {k: v for k, v in pairs if isinstance(v, str) and IDENTITY.fullmatch(v)}


def write_identities(folder: Path, identities: Mapping[str, str]) -> None:
    """Writes what :func:`read_identities` reads.

    Raises:
        OSError: the system refuses.
    """
    text = json.dumps(dict(identities), indent=2) + "\n"
    replace_file(folder / IDENTITY_FILE, [text.encode()], inside=folder)
