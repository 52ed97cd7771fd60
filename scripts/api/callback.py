"""The user's function that follows a training, and how it stops it."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import final

from pgtoolkit.errors import RequestError
from pgtoolkit.training.progress import Progress, Watch, unwatched


@final
class StopTraining(Exception):
    """Raised by a callback, it stops the training.

    The run is saved and can be resumed, and ``pgtoolkit.train`` returns it.
    """


@final
@dataclasses.dataclass(frozen=True)
class TrainingProgress:
    """How far a run is. Returns are undiscounted, in the environment's unit."""

    num_steps: int
    """Environment steps so far, of all environments together."""
    total_steps: int
    """Environment steps that are planned."""
    num_updates: int
    """Updates so far."""
    mean_return: float | None
    """Mean return of the last 100 training episodes; None before the first one has ended."""
    eval_return: float | None
    """Mean return of the last evaluation; None before the first one."""
    eval_steps: int | None
    """Environment steps at the last evaluation: ``num_steps`` if this update was evaluated."""
    best_return: float | None
    """Mean return of the best evaluation."""
    finished: bool
    """Whether all steps that are planned were made."""

    @classmethod
    def of(cls, progress: Progress, total_steps: int) -> "TrainingProgress":
        """A copy of the loop's own progress, which goes on changing."""
        return cls(
            progress.num_steps,
            total_steps,
            progress.num_updates,
            progress.mean_return,
            progress.eval_return,
            progress.eval_steps,
            progress.best_return,
            progress.done(total_steps),
        )


Callback = Callable[[TrainingProgress, Mapping[str, float]], object]
"""Called after every update with the progress and the latest value of every TensorBoard tag."""


def watch_of(callback: Callback | None, total_steps: int) -> Watch:
    """The function that follows the loop and calls the user's.

    Raises:
        RequestError: the callback cannot be called with two arguments.
    """
    if callback is None:
        return unwatched
    _require_callable(callback)

    def watch(progress: Progress) -> bool:
        try:
            answer = callback(TrainingProgress.of(progress, total_steps), dict(progress.scalars))
        except StopTraining:
            return True
        # In other libraries True stops, or False does: neither is guessed here.
        if isinstance(answer, bool):
            raise RequestError(
                f"the callback returned {answer}: let it return nothing, and raise "
                "pgtoolkit.StopTraining to stop the run"
            )
        return False

    return watch


def _require_callable(callback: object) -> None:
    advice = "give a function of two arguments, callback(progress, metrics)"
    if not callable(callback) or isinstance(callback, type):
        raise RequestError(f"callback must be a function, not {callback!r}: {advice}")
    try:
        signature = inspect.signature(callback)
    except ValueError:  # a function in C that does not say it
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise RequestError(f"the callback cannot be called ({error}): {advice}") from error
