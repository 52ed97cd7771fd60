"""Trackio: https://huggingface.co/docs/trackio. The environment variables of trackio hold.

A run is written to a local database, which ``trackio show`` draws; a Space only where trackio's own
variables name one.
"""

from collections.abc import Mapping
from typing import Any, final

from pgtoolkit.training.trackers.base import DEFAULT_PROJECT, TrackedRun


@final
class TrackioTracker:
    """Follows a run with trackio."""

    _run: Any

    def begin(self, run: TrackedRun) -> str:
        import trackio

        name = run.identity or run.folder.absolute().name
        self._run = trackio.init(
            project=run.project or DEFAULT_PROJECT,
            name=name,
            resume="never" if run.identity is None else "allow",
            config=dict(run.settings),
            embed=False,
            # The scalars are those of TensorBoard and no others.
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return name

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def finish(self, *, failed: bool) -> None:
        self._run.finish()
