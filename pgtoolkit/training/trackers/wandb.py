"""Weights & Biases: https://docs.wandb.ai. The environment variables of wandb hold.

With ``WANDB_MODE=offline`` the run is written to a folder, and ``wandb sync`` sends it later.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any, final

from pgtoolkit.training.trackers.base import DEFAULT_PROJECT, LOG, TrackedRun

STEP = "env_step"
"""The scalar over which all others are drawn. wandb's own step may not go back, and a run that was
killed repeats the steps since its last checkpoint."""


@final
class WandbTracker:
    """Follows a run with wandb."""

    _run: Any

    def begin(self, run: TrackedRun) -> str:
        import wandb

        self._run = wandb.init(
            project=run.project or os.environ.get("WANDB_PROJECT", DEFAULT_PROJECT),
            name=run.folder.absolute().name,
            id=run.identity,
            resume=None if run.identity is None else "allow",
            config=dict(run.settings),
            allow_val_change=True,
            dir=os.environ.get("WANDB_DIR", str(run.folder)),
            # Its copy of the terminal would stand in the way of the progress line.
            settings=wandb.Settings(console="off", silent=not LOG.isEnabledFor(logging.WARNING)),
        )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)
        return str(self._run.id)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log({**scalars, STEP: step})

    def finish(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
