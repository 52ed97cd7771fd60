"""Scalars of a run, read from its TensorBoard events."""

import logging
import statistics
from pathlib import Path
from typing import final

import numpy as np

from pgtoolkit.scripts.comparison.curves import Curve
from pgtoolkit.training.history import followed_of

Scalars = dict[str, tuple[list[int], list[float]]]
"""TensorBoard tag to steps and values."""

EVALUATION, CPU_SECONDS = "eval/mean_reward", "time/cpu_seconds"


def read_scalars(path: Path) -> Scalars:
    """All scalars in the TensorBoard events of a run's folder, as TensorBoard shows them."""
    events = Events(path)
    return {tag: events.series(tag) for tag in events.tags()}


@final
class Events:
    """The TensorBoard events of a run's folder, which may still be written.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of what a resume voids
        self._found = EventAccumulator(str(path), size_guidance={"scalars": 0})
        self.read_on()

    def read_on(self) -> None:
        """Reads what was written since the last reading."""
        self._found.Reload()

    def tags(self) -> list[str]:
        """The tags of scalars."""
        return list(self._found.Tags()["scalars"])

    def series(self, tag: str) -> tuple[list[int], list[float]]:
        """Steps and values of a tag of scalars; none where there is no such tag."""
        events = self._found.Scalars(tag) if tag in self.tags() else []
        return [event.step for event in events], [event.value for event in events]


def curve_of(scalars: Scalars, tag: str) -> Curve | None:
    """A tag's finite values over environment steps; None where there are none."""
    steps, values = (np.array(column, np.float64) for column in scalars.get(tag, ([], [])))
    finite = np.isfinite(values)
    return Curve(steps[finite], values[finite]) if finite.any() else None


def median_snr(scalars: Scalars) -> float | None:
    """SNR of one trajectory: the median over training, of the gradient that the optimiser follows.

    None where no SNR was measured, or it is not known which gradient was followed.
    """
    curve = curve_of(scalars, f"gradient/{followed_of(scalars)}/snr")
    return None if curve is None else statistics.median(curve.y.tolist())


def over_cpu_seconds(scalars: Scalars, tag: str) -> Curve | None:
    """A tag's values over the CPU seconds of training, without evaluations.

    None where a run has not counted them: one from before they were.
    """
    curve, clock = curve_of(scalars, tag), curve_of(scalars, CPU_SECONDS)
    if curve is None or clock is None:
        return None
    return Curve(np.interp(curve.x, clock.x, clock.y), curve.y)
