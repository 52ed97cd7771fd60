"""The TensorBoard writer: scalars at environment steps, one image, text, hyperparameters."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, final

import torch
from torch.utils.tensorboard.summary import hparams

from pgtoolkit.agent import Metrics
from pgtoolkit.errors import RunFileError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.training.chart import linear_step_chart, step_chart
from pgtoolkit.training.dashboard import dashboard_scalars, layout
from pgtoolkit.training.storage.disk import writing
from pgtoolkit.training.storage.event_file import EventFileSummaryWriter
from pgtoolkit.training.tags import definitions_text
from pgtoolkit.training.trackers.base import TrackedRun, Tracker, Untracked

BY_STEP = "gradient/by_step/"
PAIR_BY_STEP = {
    "/bias_by_step": "squared bias of dJ/du by step",
    "/cosine_by_step": "cosine of dJ/du by step",
}
"""Ends of the tags of a pair's curves, each an image of its own, with the images' titles."""

HPARAM_METRICS = ("eval/mean_reward", "rollout/ep_rew_mean", "gradient/variance_ratio")


ALWAYS_SHOWN = ("agent", "env", "seed", "estimator")
"""Settings that the HParams tab has in every run that has them."""
NEVER_SHOWN = ("eval_episodes", "eval_max_steps")
"""Settings that it does not have: they change no training, and depend on the environment."""


def differing(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a table of runs shows.

    These are the ones of :data:`ALWAYS_SHOWN`, and those that differ from their defaults or have
    none, but for :data:`NEVER_SHOWN`.
    """
    return {
        name: value
        for name, value in settings.items()
        if name in ALWAYS_SHOWN
        or (name not in NEVER_SHOWN and (name not in defaults or value != defaults[name]))
    }


def as_floats(metrics: Metrics) -> dict[str, float]:
    """The scalars among metrics as floats; vectors are left out."""
    names = [name for name, value in metrics.items() if value.dim() == 0]
    # One conversion for all: each would wait for the device on its own.
    columns = [metrics[name].detach().double().cpu() for name in names]
    values = torch.stack(columns).tolist() if columns else []
    return dict(zip(names, values, strict=True))


def step_images(metrics: Metrics, step: int) -> dict[str, Any]:
    """Images of the metrics by step of the window, by tag.

    The variances of all estimators are in one image, and each curve of a pair has its own. A curve
    without a number that the axis can show has none.
    """
    vectors = {name: x.detach().cpu().tolist() for name, x in metrics.items() if x.dim() == 1}
    images = {}
    variances = {n.removeprefix(BY_STEP): x for n, x in vectors.items() if n.startswith(BY_STEP)}
    if any(value > 0 and math.isfinite(value) for curve in variances.values() for value in curve):
        title = f"variance of dJ/du by step, at {step:,} steps"
        images[BY_STEP.rstrip("/")] = step_chart(variances, title=title)
    for tag, curve in vectors.items():
        for end, title in PAIR_BY_STEP.items():
            if tag.endswith(end) and any(map(math.isfinite, curve)):
                title = f"{title}, at {step:,} steps"
                label = tag.removesuffix(end).rpartition("/")[2]
                images[tag] = linear_step_chart({label: curve}, title=title)
    return images


@final
class RunWriter:
    """Writes one run's event file.

    Args:
        path: the run folder.
        purge_step: on resuming, the step from which older events are void.
        tracker: gets the same scalars and settings; its failures are its own.

    Raises:
        RunFileError: the file cannot be written; from every method but :meth:`__exit__`.
    """

    def __init__(
        self, path: Path, purge_step: int | None = None, tracker: Tracker | None = None
    ) -> None:
        self.path, self.followed, self.tracker = path, "", tracker or Untracked()
        with writing(path):
            self.writer = EventFileSummaryWriter(path, purge_step)

    def begin(self, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        """Definitions, configuration, hyperparameters and the layout of the Custom Scalars tab.

        Args:
            settings: all settings of the run.
            defaults: their defaults. The HParams tab has those settings that differ from them, and
                :data:`ALWAYS_SHOWN`.
        """
        followed = settings.get("estimator")
        self.followed = followed if followed in CATALOGUE else "score_function"
        with writing(self.path):
            self._begin(settings, differing(settings, defaults or {}))
        self.tracker.begin(TrackedRun(self.path, settings, settings.get("track_project"), None))

    def _begin(self, settings: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
        self.writer.add_text("tags", definitions_text())
        rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
        self.writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")
        self.writer.add_custom_scalars(layout("critic" in settings))
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in shown.items()
        }
        experiment, session_start, self._session_end = hparams(  # type: ignore[no-untyped-call]
            plain, dict.fromkeys(HPARAM_METRICS, 0.0)
        )
        self.writer._get_file_writer().add_summary(experiment)
        self.writer._get_file_writer().add_summary(session_start)

    def write(self, metrics: Metrics, step: int) -> dict[str, float]:
        """Writes scalars, and vectors by step as an image; returns the scalars as floats."""
        scalars, images = as_floats(metrics), step_images(metrics, step)
        shown = scalars | dashboard_scalars(scalars, self.followed or "score_function")
        with writing(self.path):
            for name, value in shown.items():
                self.writer.add_scalar(name, value, step)
            for tag, image in images.items():
                self.writer.add_image(tag, image, step, dataformats="HWC")
            self.writer.events.write_if_old()
        self.tracker.log(shown, step)
        return scalars

    def write_text(self, tag: str, text: str, step: int) -> None:
        """Writes Markdown for TensorBoard's Text tab."""
        with writing(self.path):
            self.writer.add_text(tag, text, step)

    def end(self) -> None:
        """Marks the run as finished in the HParams tab."""
        with writing(self.path):
            self.writer._get_file_writer().add_summary(self._session_end)

    def flush(self) -> None:
        """Writes everything through to the disk."""
        with writing(self.path):
            self.writer.flush()

    def close(self) -> None:
        with writing(self.path):
            self.writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Closes the file, then the tracker, which may take a while.

        After an error, a second one in closing the file would only hide the first.
        """
        with contextlib.suppress(*(() if kind is None else (RunFileError,))):
            self.close()
        self.tracker.finish(failed=kind is not None)
