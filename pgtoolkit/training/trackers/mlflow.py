"""MLflow: https://mlflow.org/docs. The environment variables of MLflow hold.

``MLFLOW_TRACKING_URI`` names a server or a folder; without it MLflow writes a local file.
"""

import os
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, final

from pgtoolkit.training.trackers.base import DEFAULT_PROJECT, TrackedRun

MAX_PARAMETERS = 100
"""Most parameters that MLflow takes at a time."""


@final
class MlflowTracker:
    """Follows a run with MLflow. Scalars are handed over by a thread of MLflow's."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run = ""
        self._handed_over: deque[Any] = deque()

    def begin(self, run: TrackedRun) -> str:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if run.identity is None:
            place = run.project or os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_PROJECT)
            found = self._client.get_experiment_by_name(place)
            experiment = (
                self._client.create_experiment(place) if found is None else found.experiment_id
            )
            name = run.folder.absolute().name
            self._run = self._client.create_run(experiment, run_name=name).info.run_id
        else:
            self._run = run.identity
            self._client.update_run(self._run, status="RUNNING")
        self._log_settings(run.settings)
        return self._run

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, step) for name, value in scalars.items()]
        handed = self._client.log_batch(self._run, metrics=metrics, synchronous=False)
        self._handed_over.append(handed)
        while self._handed_over and is_done(self._handed_over[0]):
            self._handed_over.popleft().wait()  # raises what went wrong

    def finish(self, *, failed: bool) -> None:
        while self._handed_over:
            self._handed_over.popleft().wait()
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")

    def _log_settings(self, settings: Mapping[str, Any]) -> None:
        """Settings are parameters, which MLflow lets nobody change: a changed one becomes a tag."""
        from mlflow.entities import Param

        known = self._client.get_run(self._run).data.params
        given = {name: str(value) for name, value in settings.items()}
        new = [Param(name, value) for name, value in given.items() if name not in known]
        for start in range(0, len(new), MAX_PARAMETERS):
            self._client.log_batch(self._run, params=new[start : start + MAX_PARAMETERS])
        for name, value in given.items():
            if name in known and known[name] != value:
                self._client.set_tag(self._run, f"resumed.{name}", value)


def is_done(operations: Any) -> bool:
    """Whether everything of MLflow's ``RunOperations`` has been handed over, or has failed.

    Where another version of MLflow does not say it, it counts as done, and is waited for.
    """
    return all(future.done() for future in getattr(operations, "_operation_futures", ()))
