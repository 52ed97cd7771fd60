"""A video of the deterministic policy at each evaluation of a run."""

import io
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from pgtoolkit.agent import evaluated_policy
from pgtoolkit.envs.registry.resolve import EnvSpec
from pgtoolkit.errors import RequestError, SettingError, single_line
from pgtoolkit.policies.policy import Policy
from pgtoolkit.scripts.cli.display.video import (
    MAX_FRAMES,
    episode_frames,
    rendering,
    require_mp4,
    require_rendering,
    write_mp4,
)
from pgtoolkit.scripts.cli.experiment import Experiment
from pgtoolkit.seeding import stream_seed
from pgtoolkit.training.no_writer import NoWriter
from pgtoolkit.training.progress import Progress
from pgtoolkit.training.run_folder import RunFolder
from pgtoolkit.training.storage.files import replace_file
from pgtoolkit.training.writer import RunWriter

LOG = logging.getLogger("pgtoolkit")

VIDEO_TAG = "eval/video"

FOLDER = "videos"
"""Folder of the .mp4 files in a run's folder."""

MAX_GIF_FRAMES, MAX_GIF_SIDE = 150, 240
"""Frames and longest side, in pixels, of the animation in TensorBoard, whose file has them all."""

MIN_GIF_MILLISECONDS = 20
"""The shortest time of a frame of an animation that browsers keep to."""


def require_filmable(experiment: Experiment) -> None:
    """Draws a frame, so that a run whose videos cannot be made ends before it begins.

    A run without ``capture_video`` is left alone.

    Raises:
        RequestError: the environment cannot be rendered here, the extra ``video`` is missing, or
            there are no evaluations.
    """
    loop, source = experiment.settings.loop, experiment.environments.single
    if not loop.capture_video:
        return
    if loop.eval_interval == 0:
        raise SettingError(
            "--capture-video films the policy at each evaluation, and with --eval-interval 0 there "
            "is none: give the environment steps between two"
        )
    try:
        require_mp4()
        require_rendering(source)
    except RequestError as error:
        raise SettingError(f"--capture-video cannot film: {error.with_flags}") from error


def film_of(
    experiment: Experiment,
    folder: RunFolder,
    writer: RunWriter | NoWriter,
    progress: Progress,
) -> Callable[[], None]:
    """Films the policy as it is when this is called; does nothing in a run without videos."""
    if not experiment.settings.loop.capture_video or isinstance(writer, NoWriter):
        return lambda: None
    videos = RunVideos(
        experiment.environments.single,
        folder.path,
        seed=stream_seed(experiment.settings.run.seed, "video"),
        max_steps=experiment.eval_max_steps,
    )
    return lambda: videos.film(evaluated_policy(experiment.agent), writer, progress.num_steps)


@final
class RunVideos:
    """Films the policy of a run.

    The whole episode is ``videos/step_000050000.mp4`` in the run's folder; TensorBoard has a small
    animation under ``eval/video``. All videos start in the same state.

    Args:
        source: makes one environment, as evaluations have it.
        folder: the run's folder.
        seed: of the start of the episode.
        max_steps: steps after which an episode without an end is left.
    """

    def __init__(self, source: EnvSpec, folder: Path, *, seed: int, max_steps: int) -> None:
        self._source, self._folder, self._seed = source, folder / FOLDER, seed
        self._max_frames = min(MAX_FRAMES, max_steps)
        self._has_failed = False

    def film(self, policy: Policy, writer: RunWriter, step: int) -> None:
        """Films one episode. What fails is said once, and does not end the run.

        Args:
            policy: acts by its mode.
            writer: the run's, for the animation.
            step: environment steps so far.
        """
        animation = Animation()
        try:
            with tempfile.TemporaryDirectory() as folder, rendering(self._source) as (env, fps):
                path = Path(folder) / f"step_{step:09d}.mp4"
                frames = episode_frames(
                    env, policy, self._source.name, seed=self._seed, max_frames=self._max_frames
                )
                write_mp4(path, map(animation.seen, frames), fps)
                self._folder.mkdir(exist_ok=True)
                film = self._folder / path.name
                replace_file(film, [path.read_bytes()], inside=self._folder.parent)
            encoded = animation.gif(fps)
        except Exception as error:  # renderers and encoders raise whatever they like
            self._say_once(error, step)
            return
        writer.write_animation(VIDEO_TAG, encoded, animation.size, step)

    def _say_once(self, error: Exception, step: int) -> None:
        if not self._has_failed:
            LOG.warning(
                "the video at step %s failed, and the run goes on without it: %s (said once)",
                f"{step:,}",
                single_line(error),
            )
        self._has_failed = True


@final
class Animation:
    """Small copies of frames that pass by: every first, second, fourth... of them.

    There are at most ``2 MAX_GIF_FRAMES`` of them at any time, however long the video is.
    """

    def __init__(self) -> None:
        self._images: list[Image.Image] = []
        self._stride, self._count = 1, 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._images[0].size

    def seen(self, frame: np.ndarray) -> np.ndarray:
        """The frame itself; a copy may be kept."""
        if self._count % self._stride == 0:
            image = Image.fromarray(frame)
            image.thumbnail((MAX_GIF_SIDE, MAX_GIF_SIDE))
            self._images.append(image)
        self._count += 1
        if len(self._images) >= 2 * MAX_GIF_FRAMES:
            self._images, self._stride = self._images[::2], 2 * self._stride
        return frame

    def gif(self, fps: int) -> bytes:
        """The animation, as fast as the video where browsers can show it.

        Args:
            fps: frames per second of the frames that were seen.
        """
        images, stride = self._images, self._stride
        if len(images) > MAX_GIF_FRAMES:
            images, stride = images[::2], 2 * stride
        duration = max(MIN_GIF_MILLISECONDS, round(1000 * stride / fps))
        file = io.BytesIO()
        images[0].save(
            file, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0
        )
        return file.getvalue()
