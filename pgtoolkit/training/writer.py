"""The TensorBoard writer: scalars at environment steps, one image, text, hyperparameters."""

import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, final

import torch
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from pgtoolkit.agent import Metrics
from pgtoolkit.errors import RunFileError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.training.action_histograms import write_histograms
from pgtoolkit.training.chart import linear_step_chart, png, step_chart
from pgtoolkit.training.dashboard import (
    EVAL_SUCCESS,
    TRAINING_SUCCESS,
    Chart,
    dashboard_scalars,
    layout,
    layout_summary,
)
from pgtoolkit.training.definitions_once import FILE_NAME, holder_of_definitions
from pgtoolkit.training.storage.disk import writing
from pgtoolkit.training.storage.event_file import EventFileSummaryWriter
from pgtoolkit.training.storage.files import replace_file
from pgtoolkit.training.tags import definitions_text
from pgtoolkit.training.trackers.base import TrackedRun, Tracker, Untracked

BY_STEP = "gradient/by_step/"
PAIR_BY_STEP: dict[str, tuple[str, str, tuple[float, float] | None]] = {
    "/bias_by_step": ("squared bias of dJ/du by step", "; below 0: noise", None),
    "/cosine_by_step": ("cosine of dJ/du by step", "", (-1.0, 1.0)),
}
"""Ends of the tags of a pair's curves, each an image of its own, with the image's title, what is
said behind the pair's name, and the ends of its axis, None where the curve has them."""
PAIR_NAMES = {
    "gradient": "pathwise against score function",
    "gradient/critic": "critic against pathwise",
    "gradient/critic_to_score": "critic against score function",
}
"""Beginnings of these tags, with what the curve compares; others are named by the tag."""

HPARAM_METRICS = ("eval/mean_reward", "rollout/ep_rew_mean", "gradient/variance_ratio")


PICTURE_SHARE = 0.005
"""The share of the CPU time that pictures may take."""

ALWAYS_SHOWN = ("agent", "env", "seed", "estimator")
"""Settings that the HParams tab has in every run that has them."""
NEVER_SHOWN = ("eval_episodes", "eval_interval", "eval_max_steps", "capture_video")
"""Settings that it does not have: they change no training, and depend on the environment."""
OF_THE_TASK = ("env_kwargs", "total_steps")
"""Settings that come last in a list of what was changed: runs that are compared often agree in
them, and TensorBoard shows the beginning of a long text."""
CHANGED = "changed"
"""Column of the HParams tab with all settings of a run that differ from their defaults, in a text.
Of several runs TensorBoard shows the columns of one alone, so that the other columns lack what only
another run has changed."""


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


def hyperparameters(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], followed: str
) -> dict[str, bool | int | float | str]:
    """The columns of the HParams tab: the shown settings, and :data:`CHANGED`.

    Args:
        settings: all settings of the run. Of an environment's file the name is shown.
        defaults: their defaults.
        followed: the estimator that is followed, which is shown also where it is no setting.
    """
    shown = {"estimator": followed} | differing(settings, defaults)
    if ".py:" in str(shown.get("env")):
        shown["env"] = Path(shown["env"]).name
    changed = sorted(shown.keys() - ALWAYS_SHOWN, key=lambda name: (name in OF_THE_TASK, name))
    shown[CHANGED] = ", ".join(f"{name}={shown[name]}" for name in changed)
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in shown.items()
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
        for end, (title, note, ends) in PAIR_BY_STEP.items():
            if tag.endswith(end) and any(map(math.isfinite, curve)):
                title = f"{title}, at {step:,} steps"
                pair = tag.removesuffix(end)
                label = PAIR_NAMES.get(pair, pair) + note
                images[tag] = linear_step_chart({label: curve}, title=title, ends=ends)
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
        self._has_critic = self._shows_success = False
        self._begun_at, self._drawing_time = time.process_time(), 0.0
        self._undrawn: dict[str, tuple[Tensor, int]] = {}
        with writing(path):
            self.writer = EventFileSummaryWriter(path, purge_step)

    def begin(self, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        """Definitions, configuration, hyperparameters and the layout of the Custom Scalars tab.

        Args:
            settings: all settings of the run.
            defaults: their defaults.
        """
        estimator = settings.get("estimator")
        self.followed = estimator if estimator in CATALOGUE else "score_function"
        with writing(self.path):
            self._begin(settings, hyperparameters(settings, defaults or {}, self.followed))
        self.tracker.begin(TrackedRun(self.path, settings, settings.get("track_project"), None))

    def _begin(
        self, settings: Mapping[str, Any], shown: dict[str, bool | int | float | str]
    ) -> None:
        defined = self._define_tags()
        rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
        self._write_text("settings", f"{defined}\n\n| setting | value |\n|---|---|\n{rows}")
        self._has_critic = "critic" in settings
        self._write_layout(layout(self._has_critic))
        experiment, session_start, self._session_end = hparams(  # type: ignore[no-untyped-call]
            shown, dict.fromkeys(HPARAM_METRICS, 0.0)
        )
        self.writer._get_file_writer().add_summary(experiment)
        self.writer._get_file_writer().add_summary(session_start)

    def _write_layout(self, groups: dict[str, dict[str, Chart]]) -> None:
        self.writer._get_file_writer().add_summary(layout_summary(groups))

    def _define_tags(self) -> str:
        """Writes the definitions if no run beside this one has them; says where they are."""
        holder = holder_of_definitions(self.path)
        if holder == self.path.absolute():
            self._write_text("tags", definitions_text())
            replace_file(holder / FILE_NAME, [definitions_text().encode()], inside=holder)
            return "The tags are defined below, under *tags*."
        return (
            f"The tags are defined in the text *tags* of the run {holder.name}, once for all runs "
            f"of this folder, and in its file {FILE_NAME}."
        )

    def write(self, metrics: Metrics, step: int) -> dict[str, float]:
        """Writes scalars, and vectors by step as images; returns the scalars as floats.

        Pictures take at most ``PICTURE_SHARE`` of the CPU time since the beginning: one that would
        take more waits until the next ones, which take its place, or until the end.
        """
        scalars = as_floats(metrics)
        shown = scalars | dashboard_scalars(scalars, self.followed or "score_function")
        with writing(self.path):
            if not self._shows_success and shown.keys() & {TRAINING_SUCCESS, EVAL_SUCCESS}:
                # TensorBoard takes the last layout that a run wrote.
                self._shows_success = True
                self._write_layout(layout(self._has_critic, has_success=True))
            # One event for all: each has a header and a checksum.
            values = [Summary.Value(tag=tag, simple_value=x) for tag, x in shown.items()]
            self.writer._get_file_writer().add_summary(Summary(value=values), step)
            self._draw_if_cheap(metrics, step)
            write_histograms(self.writer, metrics, step)
            self.writer.events.write_if_old()
        self.tracker.log(shown, step)
        return scalars

    def _draw_if_cheap(self, metrics: Metrics, step: int) -> None:
        self._undrawn |= {name: (x, step) for name, x in metrics.items() if x.dim() == 1}
        now = time.process_time()
        if self._undrawn and self._drawing_time <= PICTURE_SHARE * (now - self._begun_at):
            self._draw()
            self._drawing_time += time.process_time() - now

    def _draw(self) -> None:
        """Draws the latest vectors that were not drawn."""
        undrawn, self._undrawn = self._undrawn, {}
        for step in sorted({step for _, step in undrawn.values()}):
            vectors = {name: x for name, (x, at) in undrawn.items() if at == step}
            for tag, image in step_images(vectors, step).items():
                height, width = image.shape[:2]
                self._write_image(tag, png(image), (width, height), step)

    def _write_image(self, tag: str, encoded: bytes, size: tuple[int, int], step: int) -> None:
        width, height = size
        image = Summary.Image(
            width=width, height=height, colorspace=3, encoded_image_string=encoded
        )
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        self.writer._get_file_writer().add_summary(summary, step)

    def write_animation(self, tag: str, gif: bytes, size: tuple[int, int], step: int) -> None:
        """Writes an encoded animation, which TensorBoard plays among the images.

        torch's ``add_video`` needs a version of moviepy that is no more.

        Args:
            tag: its tag.
            gif: the animation.
            size: width and height in pixels.
            step: environment steps so far.
        """
        with writing(self.path):
            self._write_image(tag, gif, size, step)

    def write_text(self, tag: str, text: str, step: int) -> None:
        """Writes Markdown for TensorBoard's Text tab."""
        with writing(self.path):
            self._write_text(tag, text, step)

    def _write_text(self, tag: str, content: str, step: int | None = None) -> None:
        """Writes one string.

        torch's ``add_text`` appends ``/text_summary`` to the tag, and writes a list of one string,
        which TensorBoard shows as a table of one cell.
        """
        value = Summary.Value(
            tag=tag,
            metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
            tensor=TensorProto(
                dtype="DT_STRING", tensor_shape=TensorShapeProto(), string_val=[content.encode()]
            ),
        )
        self.writer._get_file_writer().add_summary(Summary(value=[value]), step)

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
            self._draw()
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
