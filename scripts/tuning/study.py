"""A study: its journal on the disk, which several processes share, and its trials."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.scripts.cli.files import make_folder
from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.scripts.tuning.journal import open_journal
from pgtoolkit.scripts.tuning.sampler import SeededSampler, quietly
from pgtoolkit.scripts.tuning.space import Dimension
from pgtoolkit.training.storage.lock import is_locked, locked, locked_in_turn

JOURNAL_NAME, STUDY_NAME = "journal.log", "tune"

IDENTITY = "settings"
"""The study's attribute with all that its trials have in common."""

DEFAULTS_FIRST = "defaults_first"
"""The study's attribute that says that the first trial has the defaults."""

VALUES, RETURNS, SNRS = "values", "returns", "snr"
REASON, SECONDS = "reason", "cpu_seconds"
"""Attributes of a trial."""


@final
@dataclasses.dataclass(frozen=True)
class Taken:
    """A trial that this process works at. Its folder is locked until ``release`` is closed."""

    trial: optuna.Trial
    values: Mapping[str, Any]
    """The searched settings."""
    folder: Path
    again: bool
    """Whether another process, which has ended, had begun it."""
    release: contextlib.ExitStack


@final
class Study:
    """The study in a folder.

    Args:
        root: the folder; it is made.
        identity: what all trials have in common, as JSON holds it. A study with another one is
            refused.
        space: the settings to search.
        seed: seeds the sampler.
        defaults: the settings' defaults. The first trial has them, if the ranges do.

    Raises:
        RequestError: the folder cannot be made, its journal cannot be read, or the study there has
            another identity.
    """

    def __init__(
        self,
        root: Path,
        identity: Mapping[str, Any],
        space: Sequence[Dimension],
        seed: int,
        defaults: Mapping[str, Any],
    ) -> None:
        self.root, self.space = root, space
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        make_folder(root, "--run-dir")
        with locked_in_turn(root), readable(root / JOURNAL_NAME):
            storage = quietly(lambda: JournalStorage(open_journal(root / JOURNAL_NAME)))
            self.optuna = optuna.create_study(
                storage=storage,
                study_name=STUDY_NAME,
                direction="maximize",
                load_if_exists=True,
                sampler=SeededSampler(seed),
            )
            self._begin(identity, defaults)

    def _begin(self, identity: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """Gives a new study its identity, and its first trial; compares that of another one."""
        wanted = json.loads(json.dumps(identity))
        found = self.optuna.user_attrs.get(IDENTITY)
        if found is not None:
            require_same(self.root, found, wanted)
            return
        within = all(each.contains(defaults[each.name]) for each in self.space)
        if within and not self.optuna.trials:
            first = {each.parameter: each.stored(defaults[each.name]) for each in self.space}
            self.optuna.enqueue_trial(first)
            self.optuna.set_user_attr(DEFAULTS_FIRST, True)
        self.optuna.set_user_attr(IDENTITY, wanted)

    @property
    def begins_with_defaults(self) -> bool:
        """Whether the first trial has the defaults of the searched settings."""
        return DEFAULTS_FIRST in self.optuna.user_attrs

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials that were begun, also by other processes."""
        found = self.optuna.get_trials(deepcopy=False)
        return [trial for trial in found if trial.state != TrialState.WAITING]

    @property
    def best(self) -> FrozenTrial | None:
        """The complete trial with the greatest mean return; of equal ones the first."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(complete, key=value_of, default=None)

    def take(self, count: int) -> Taken | None:
        """A trial to work at: one whose process has ended, else a new one; None if none is left.

        Args:
            count: trials that the study shall have.
        """
        with locked_in_turn(self.root):
            begun = self.trials
            for frozen in begun:
                left = frozen.state == TrialState.RUNNING
                if left and not is_locked(self.folder_of(frozen.number)):
                    trial = optuna.Trial(self.optuna, frozen._trial_id)
                    return self._hold(trial, again=True)
            return self._hold(self.optuna.ask(), again=False) if len(begun) < count else None

    def _hold(self, trial: optuna.Trial, *, again: bool) -> Taken:
        folder = self.folder_of(trial.number)
        make_folder(folder, "--run-dir")
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(folder))
            values = {each.name: quietly(lambda d=each: d.suggest(trial)) for each in self.space}  # type: ignore[misc]
            if VALUES not in trial.user_attrs:
                trial.set_user_attr(VALUES, values)
            return Taken(trial, values, folder, again, stack.pop_all())

    def folder_of(self, number: int) -> Path:
        return self.root / f"trial-{number:04}"

    def told(self, number: int) -> Mapping[int, float]:
        """The values of a trial's evaluations so far, by point."""
        return self.optuna.get_trials(deepcopy=False)[number].intermediate_values

    def told_by_others(self, number: int, *, complete: bool) -> list[Mapping[int, float]]:
        """The same of each other trial, or of the complete ones alone."""
        others = [trial for trial in self.trials if trial.number != number]
        if complete:
            others = [trial for trial in others if trial.state == TrialState.COMPLETE]
        return [trial.intermediate_values for trial in others]

    def complete(self, taken: Taken, returns: Sequence[float], cpu_seconds: float | None) -> None:
        """Ends a trial with the mean return of each of its seeds."""
        taken.trial.set_user_attr(RETURNS, list(returns))
        taken.trial.set_user_attr(SECONDS, cpu_seconds)
        self.optuna.tell(taken.trial, sum(returns) / len(returns))
        taken.release.close()

    def note_snrs(self, taken: Taken, snrs: Sequence[float | None]) -> None:
        """Keeps the SNR of the gradient of each seed of a trial that is about to end."""
        taken.trial.set_user_attr(SNRS, list(snrs))

    def prune(self, taken: Taken) -> None:
        self.optuna.tell(taken.trial, state=TrialState.PRUNED)
        taken.release.close()

    def fail(self, taken: Taken, reason: str) -> None:
        taken.trial.set_user_attr(REASON, reason)
        self.optuna.tell(taken.trial, state=TrialState.FAIL)
        taken.release.close()


def value_of(trial: FrozenTrial) -> float:
    """The mean return of a complete trial."""
    assert trial.value is not None, "the trial is complete"
    return trial.value


def require_same(root: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Checks that a study's trials can be compared with those that are wanted.

    Raises:
        RequestError: names what differs.
    """
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names:
        shown = (f"{name}: {found.get(name)} there, {wanted.get(name)} here" for name in names)
        raise RequestError(
            f"the study in {root} was made with other settings ({join_names(shown)}): give the "
            "same ones, or another --run-dir"
        )


@contextlib.contextmanager
def readable(journal: Path) -> Iterator[None]:
    """A block that reads a journal.

    Raises:
        RequestError: the block could not; the file is damaged, or is no journal.
    """
    try:
        yield
    except RequestError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RequestError(
            f"the study's journal {journal} cannot be read ({single_line(error)[:300]}): give "
            "another --run-dir, or remove the file to begin anew"
        ) from error
