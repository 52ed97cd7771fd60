"""``scripts/studies/environment_pictures.py --output docs/pictures``: a trained policy at work.

Trains an agent on each environment of this package for a short time, plays one episode with the
best policy, and writes six of its pictures side by side, for the site's pages of environments.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

from pgtoolkit.config import Settings, at_least, at_most
from pgtoolkit.limits import MAX_COUNT
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.registry import lookup, registered_env_ids
from pgtoolkit.scripts.tables.reproductions import preset

if TYPE_CHECKING:
    from PIL.Image import Image

    from pgtoolkit.rollouts.trained_policy import TrainedPolicy

FRAMES = 6
"""Pictures of an episode, at equal distances in time."""
PICTURE_SIZE = 160
"""Height and width of one of them, in pixels."""
TRAINED_BY: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "pgtoolkit/Wall-v0": ("ppo", {}),
    "pgtoolkit/Step-v0": ("ppo", {}),
    "pgtoolkit/MountainCarContinuous-v0": ("sac", preset("sac", "MountainCarContinuous-v0")),
}
"""Agent and settings where the pathwise gradient misses what the reward is for; else ``shac``."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvironmentPicturesArguments(Settings):
    """Draws a trained policy in each environment of this package."""

    output: Path
    """Folder for the pictures, NAME.png."""
    envs: tuple[str, ...] = ()
    """Ids of environments of this package. Default: all."""
    total_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 200_000
    """Environment steps of training."""
    seed: int = 0
    """Seed of the training and of the episode."""


def run(arguments: Sequence[str]) -> None:
    """Trains, plays and draws, one environment after the other.

    Raises:
        RequestError: there is no such environment, or a picture cannot be written.
    """
    options = parse(EnvironmentPicturesArguments, arguments, command="studies/environment_pictures")
    known = dict.fromkeys(registered_env_ids())
    for name in options.envs:
        lookup(name, known, "environment")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.envs or known:
        draw(name, options)


def draw(name: str, options: EnvironmentPicturesArguments) -> None:
    """Trains in a folder that is removed afterwards, and writes the picture of one environment."""
    import tempfile

    import pgtoolkit

    agent, settings = TRAINED_BY.get(name, ("shac", {}))
    steps, seed = options.total_steps, options.seed
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/run"
        run = pgtoolkit.train(agent, name, total_steps=steps, seed=seed, run_dir=path, **settings)
        strip(name, run.policy, seed).save(options.output / f"{name.split('/')[1][:-3]}.png")


def strip(name: str, policy: "TrainedPolicy", seed: int) -> "Image":
    """Pictures of one deterministic episode, side by side, as a Pillow image."""
    import gymnasium
    import numpy as np
    from PIL import Image

    env = gymnasium.make(name, render_mode="rgb_array")
    obs, _ = env.reset(seed=seed)
    frames, ended = [env.render()], False
    while not ended:
        obs, _, terminated, truncated, _ = env.step(policy.predict(obs))
        frames.append(env.render())
        ended = terminated or truncated
    env.close()
    chosen = [frames[round(i * (len(frames) - 1) / (FRAMES - 1))] for i in range(FRAMES)]
    found = Image.new("RGB", (FRAMES * PICTURE_SIZE, PICTURE_SIZE), "white")
    for i, frame in enumerate(chosen):
        small = Image.fromarray(np.asarray(frame)).resize((PICTURE_SIZE, PICTURE_SIZE))
        found.paste(small, (i * PICTURE_SIZE, 0))
    return found.quantize(64)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
