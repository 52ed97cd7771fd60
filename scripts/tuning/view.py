"""The progress of a study on the screen: a bar on a terminal, plain lines elsewhere."""

from collections import Counter
from collections.abc import Sequence
from typing import final

from optuna.trial import FrozenTrial, TrialState

from pgtoolkit.scripts.cli.formatting import format_number, join_names
from pgtoolkit.scripts.comparison.view import LinesView
from pgtoolkit.scripts.tuning.study import REASON, VALUES, value_of

WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "at work",
}
"""States of trials, in the order in which they are shown."""


@final
class StudyView(LinesView):
    """Shows the steps and trials of the study, those of other processes included.

    Args:
        count: trials that the study shall have.
        steps_each: environment steps of a whole trial.
    """

    def __init__(self, count: int, steps_each: int) -> None:
        super().__init__("tuning", count * steps_each)
        self.steps_each = steps_each

    def advance(
        self, trials: Sequence[FrozenTrial], best: FrozenTrial | None, steps: int, *, finished: bool
    ) -> None:
        """Called often.

        Args:
            trials: of the study.
            best: the best complete one.
            steps: environment steps so far of the trials that this process works at.
            finished: whether this process is done.
        """
        ended = sum(trial.state != TrialState.RUNNING for trial in trials)
        text = counts_text(trials)
        if best is not None:
            text += f"; best {format_number(value_of(best), 4)} (trial {best.number})"
        self.show(ended * self.steps_each + steps, text, finished=finished)

    @property
    def seconds_between(self) -> float:
        """Seconds between two calls of :meth:`advance`; the lines of a log stay, unlike a bar."""
        return 1.0 if self.console.is_terminal else 30.0

    def taken_up(self, number: int) -> None:
        self.say(f"trial {number}: its process has ended; it goes on here")

    def ended(self, trial: FrozenTrial) -> None:
        """Called for each trial that this process has ended."""
        values = join_names(f"{k}={v}" for k, v in trial.user_attrs[VALUES].items())
        self.say(f"trial {trial.number}: {outcome_text(trial)}; {values}")


def counts_text(trials: Sequence[FrozenTrial]) -> str:
    """``4 trials complete, 1 pruned, 2 at work``."""
    counts = Counter(trial.state for trial in trials)
    words = [f"{counts[s]} {w}" for s, w in WORDS.items() if counts[s] or s == TrialState.COMPLETE]
    return f"trials: {join_names(words)}"


def outcome_text(trial: FrozenTrial) -> str:
    """How a trial has ended."""
    if trial.state == TrialState.COMPLETE:
        return f"mean return {format_number(value_of(trial), 4)}"
    if trial.state == TrialState.FAIL:
        return f"failed ({trial.user_attrs.get(REASON, 'without a reason')})"
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        point = max(trial.intermediate_values)
        value = format_number(trial.intermediate_values[point], 4)
        return f"pruned after {point:,} steps with a mean return of {value}"
    return WORDS.get(trial.state, "waiting")
