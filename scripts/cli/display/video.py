"""A video of one episode."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.error import DependencyNotInstalled
from PIL import Image

from pgtoolkit.envs.registry.registered import missing_package
from pgtoolkit.envs.registry.resolve import EnvSpec
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.extras import install_command
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.given_action import given_action
from pgtoolkit.scripts.cli.files import require_writable

MAX_FRAMES = 2000

DEFAULT_FPS = 30

FRAME_CHANNELS = ((), (3,), (4,))
"""The shapes of a pixel that Pillow takes: grey, red, green and blue, and these with opacity."""


def record_episode(source: EnvSpec, policy: Policy, path: Path, *, seed: int) -> None:
    """Runs one deterministic episode and writes it as .gif (Pillow) or .mp4 (extra ``video``).

    The video ends after ``MAX_FRAMES`` frames if the episode does not end before.

    Raises:
        RequestError: the environment cannot render, the extra is missing, or the file cannot be
            written.
    """
    with rendering(source) as (env, fps):
        frames = episode_frames(env, policy, source.name, seed=seed)
        try:
            if path.suffix == ".gif":
                write_gif(path, list(frames), fps)
            else:
                write_mp4(path, frames, fps)
        except OSError as error:
            raise RequestError(f"{path} cannot be written: {error}") from error


def require_video(path: Path) -> None:
    """Checks that a video can be encoded and written to this file, before there is one.

    Raises:
        RequestError: the suffix is not that of a video, the extra is missing, or the file cannot be
            written.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise RequestError(f"--video must end in .gif or .mp4, not {path.name}")
    if path.suffix == ".mp4":
        require_mp4()
    require_writable(path, "--video")


def require_rendering(source: EnvSpec) -> None:
    """Draws the first frame of an episode, and leaves it.

    Raises:
        RequestError: the environment cannot be rendered here.
    """
    with rendering(source) as (env, _):
        env.reset(seed=0)
        render_frame(env, source.name)


@contextlib.contextmanager
def rendering(source: EnvSpec) -> Iterator[tuple[AnyEnv, int]]:
    """A new environment that renders arrays, and its frames per second; closed afterwards.

    Raises:
        RequestError: the environment cannot render.
    """
    env = source.make_guarded(render_mode="rgb_array")
    try:
        yield env, int(env.metadata.get("render_fps") or DEFAULT_FPS)
    finally:
        env.close()


def episode_frames(
    env: AnyEnv, policy: Policy, name: str, *, seed: int, max_frames: int = MAX_FRAMES
) -> Iterator[np.ndarray]:
    """The frames ``[height, width, 3]`` before each step of one deterministic episode.

    Args:
        env: renders arrays.
        policy: acts by its mode.
        name: the environment's, for messages.
        seed: of the start.
        max_frames: the frames after which an episode without an end is left.

    Raises:
        RequestError: the environment cannot render.
    """
    give, device = given_action(env.action_space), next(policy.parameters()).device
    obs, _ = env.reset(seed=seed)
    for _ in range(max_frames):
        yield render_frame(env, name)
        with torch.no_grad():
            inputs = torch.from_numpy(np.array(obs, policy.normalizer.input_dtype)).to(device)
            action = policy(inputs).mode.cpu().numpy()
        obs, _, terminated, truncated, _ = env.step(give(action))
        if terminated or truncated:
            return


def render_frame(env: AnyEnv, name: str) -> np.ndarray:
    """The environment's current frame ``[height, width, 3]``.

    ``render`` may also return a list of frames, of which the last is the current one.

    Raises:
        RequestError: ``render`` raises, or returns no picture.
    """
    try:
        drawn: object = env.render()
    except (ImportError, DependencyNotInstalled) as error:
        raise missing_package(name, error) from error
    except Exception as error:
        # Without a display or OpenGL every renderer raises its own exceptions.
        raise RequestError(f"{name} cannot be rendered here: {single_line(error)}") from error
    picture = drawn[-1] if isinstance(drawn, list) and drawn else drawn
    try:
        frame = np.asarray(picture, dtype=np.uint8)
    except (TypeError, ValueError, OverflowError):
        frame = np.empty(0, np.uint8)
    if frame.ndim not in (2, 3) or frame.size == 0 or frame.shape[2:] not in FRAME_CHANNELS:
        kind = "None" if drawn is None else f"a {type(drawn).__name__} that is none"
        raise RequestError(
            f"{name} returns no picture from render ({kind}): return an array [height, width, 3] "
            "of uint8 for render_mode='rgb_array' (`pgtoolkit check-env` checks the rest of it)"
        )
    return np.asarray(Image.fromarray(frame).convert("RGB"))


def write_gif(path: Path, frames: list[np.ndarray], fps: int) -> None:
    """Writes the frames as an endless animated GIF."""
    images = [Image.fromarray(frame) for frame in frames]
    duration = round(1000 / fps)
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0)


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    """Writes the frames as MP4, one after the other.

    Raises:
        RequestError: imageio or its ffmpeg is not installed.
    """
    imageio = require_mp4()
    # Its own context manager leaves the encoder running after an error.
    with contextlib.closing(imageio.get_writer(path, fps=fps, macro_block_size=1)) as writer:
        for frame in frames:
            writer.append_data(even_sided(frame))


def even_sided(frame: np.ndarray) -> np.ndarray:
    """The frame with its last row and column repeated where their number is odd, for H.264."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def require_mp4() -> Any:
    """imageio, which writes MP4.

    Raises:
        RequestError: imageio or its ffmpeg is not installed.
    """
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()  # imageio's writer runs it
    except (ImportError, RuntimeError) as error:
        raise RequestError(
            f"writing .mp4 needs imageio and its ffmpeg: {install_command('video')}"
        ) from error
    return imageio
