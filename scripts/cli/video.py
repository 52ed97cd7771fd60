"""One episode as a film."""

from pathlib import Path

import numpy as np
import torch
from gymnasium.error import DependencyNotInstalled
from PIL import Image

from pgtoolkit.envs.registry.registered import missing_package
from pgtoolkit.envs.registry.resolve import EnvSpec
from pgtoolkit.errors import RequestError, one_line
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.policies.policy import Policy

MAX_FRAMES = 2000

DEFAULT_FPS = 30


def record_episode(source: EnvSpec, policy: Policy, path: Path, *, seed: int) -> None:
    """Runs one deterministic episode and writes it as .gif (Pillow) or .mp4 (extra ``video``).

    Raises:
        RequestError: the environment does not draw itself, the extra is missing, or the file cannot
            be written.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise RequestError(f"--video must end in .gif or .mp4, not {path.name}")
    env = source.make(render_mode="rgb_array")
    frames: list[np.ndarray] = []
    obs, _ = env.reset(seed=seed)
    for _ in range(MAX_FRAMES):
        frames.append(_draw(env, source.name))
        with torch.no_grad():
            action = policy(torch.as_tensor(obs, dtype=torch.float32)).mode.numpy()
        obs, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            break
    fps = int(env.metadata.get("render_fps", DEFAULT_FPS))
    env.close()
    try:
        if path.suffix == ".gif":
            write_gif(path, frames, fps)
        else:
            write_mp4(path, frames, fps)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error}") from error


def _draw(env: AnyEnv, name: str) -> np.ndarray:
    try:
        return np.asarray(env.render(), dtype=np.uint8)
    except (ImportError, DependencyNotInstalled) as error:
        raise missing_package(name, error) from error
    except Exception as error:
        # Renderers fail in their own ways where there is no screen or no OpenGL.
        raise RequestError(f"{name} cannot draw itself here: {one_line(error)}") from error


def write_gif(path: Path, frames: list[np.ndarray], fps: int) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    duration = round(1000 / fps)
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0)


def write_mp4(path: Path, frames: list[np.ndarray], fps: int) -> None:
    """Raises RequestError where imageio or its ffmpeg is missing."""
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg  # noqa: F401  # imageio's writer needs it
    except ImportError as error:
        raise RequestError(
            'writing .mp4 needs imageio: pip install "policy-gradient-toolkit[video]" (or .gif)'
        ) from error
    imageio.mimwrite(path, frames, fps=fps)  # type: ignore[arg-type]  # frames are arrays
