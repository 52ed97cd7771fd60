"""The experiment tracker that a run's settings name."""

import importlib
import importlib.util

from pgtoolkit.errors import SettingError
from pgtoolkit.extras import install_command
from pgtoolkit.scripts.cli.registry import TRACKERS
from pgtoolkit.training.loop import TrainConfig
from pgtoolkit.training.trackers.base import Guarded, Tracker, Untracked


def tracker_of(config: TrainConfig) -> Tracker:
    """The tracker that follows a run.

    Raises:
        SettingError: its package is not installed.
    """
    name = config.track
    if name == "none":
        return Untracked()
    if not is_installed(name):
        raise SettingError(
            f"--track {name} needs the package {name}: {install_command(name)} (or leave it out; "
            "TensorBoard needs nothing more)"
        )
    entry = TRACKERS[name]
    return Guarded(name, getattr(importlib.import_module(entry.module), entry.name)())


def is_installed(package: str) -> bool:
    """Whether there is such a package; a mere folder of the name, as wandb leaves it, is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None
