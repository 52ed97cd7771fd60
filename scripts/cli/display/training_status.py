"""What is told of a run while it trains: the same facts on a terminal, in lines and as JSON."""

import dataclasses
from typing import Any, Self, final

from pgtoolkit.scripts.cli.display.pace import Pace
from pgtoolkit.scripts.cli.display.progress import LABELS
from pgtoolkit.scripts.cli.files import json_value
from pgtoolkit.scripts.cli.formatting import format_number
from pgtoolkit.training.alarms import snr
from pgtoolkit.training.diagnosis import short_text
from pgtoolkit.training.progress import Progress

NO_RETURN = "no episode has ended"


@final
@dataclasses.dataclass(frozen=True)
class TrainingStatus:
    """The state of a run after an update. Returns are undiscounted, in the environment's unit."""

    step: int
    """Environment steps so far, of all environments together."""
    total_steps: int
    """Environment steps that are planned, or that the only window of a short run has."""
    updates: int
    """Updates so far."""
    finished: bool
    """Whether no further whole window fits into ``total_steps``."""
    seconds_left: float | None
    """Estimated time to the end, in seconds; None before there is a speed."""
    steps_per_second: float | None
    """Environment steps per second over the last half minute, evaluations included."""
    mean_return: float | None
    """Mean return of the last 100 training episodes; None before the first one has ended."""
    snr: float | None
    """SNR of one trajectory, mean signal over mean variance of the last measurements, as in the
    closing line; None where it is not measured."""
    alarm: str | None
    """The most serious finding in a few words; None if there is none."""
    eval_return: float | None
    """Mean return of the last evaluation; None before the first one."""
    best_return: float | None
    """Mean return of the best evaluation."""
    estimator: str | None
    """The estimator that the optimiser follows; None before a measurement."""
    variances: dict[str, float]
    """Estimator to the variance of one trajectory's gradient, where measured."""

    @classmethod
    def of(cls, progress: Progress, total_steps: int, pace: Pace) -> Self:
        """The status of a run.

        Args:
            progress: the loop's own.
            total_steps: environment steps that are planned.
            pace: has been told of the present number of steps.
        """
        finished = progress.finished(total_steps)
        followed, scalars = progress.diagnosis.history.followed, progress.scalars
        tags = {name: f"gradient/{name}/variance" for name in LABELS}
        return cls(
            step=progress.num_steps,
            total_steps=max(total_steps, progress.num_steps),
            updates=progress.num_updates,
            finished=finished,
            seconds_left=0.0 if finished else pace.seconds_left(total_steps),
            steps_per_second=pace.steps_per_second,
            mean_return=progress.mean_return,
            snr=snr(progress.diagnosis.history, str(followed)),
            alarm=short_text(progress.diagnosis.findings) or None,
            eval_return=progress.eval_return,
            best_return=progress.best_return,
            estimator=followed,
            variances={name: scalars[tag] for name, tag in tags.items() if tag in scalars},
        )

    @property
    def share(self) -> float:
        """The part of the steps that is done; 1 at the end, even if its last window is not full."""
        return 1.0 if self.finished else self.step / self.total_steps

    def as_json(self) -> dict[str, Any]:
        """The facts as plain values; None for a number that is not known or not finite."""
        found = json_value(dataclasses.asdict(self))
        assert isinstance(found, dict)
        return found


def time_text(seconds: float | None) -> str:
    """``1:02:03``, or dashes where it is not known."""
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def facts(status: TrainingStatus) -> list[str]:
    """Time left, speed, return, SNR, alarm, then the last evaluation and the variances.

    The first ones matter most, because a line that is too long loses its last ones.
    """
    found = [time_text(status.seconds_left)]
    if status.steps_per_second is not None:
        found.append(f"{format_number(status.steps_per_second)} steps/s")
    if status.mean_return is not None:
        found.append(f"return {status.mean_return:.1f}")
    elif status.updates > 0:
        found.append(NO_RETURN)
    if status.snr is not None:
        found.append(f"SNR {format_number(status.snr, 2)}")
    found += [status.alarm] if status.alarm else []
    if status.eval_return is not None:
        found.append(f"evaluation {status.eval_return:.1f}")
    return found + [
        f"{LABELS[name]} variance {format_number(value)}"
        for name, value in status.variances.items()
    ]


def plain_line(status: TrainingStatus) -> str:
    """The line where there is no terminal: steps in the place of the bar, then the facts."""
    first, *rest = facts(status)
    steps = f"{status.step}/{status.total_steps} steps"
    return "  ".join([f"{steps}  {status.share:.0%}  {first} left", *rest])
