"""Commands as tasks of a Ray cluster, whose machines have the same files."""

import contextlib
import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.engines.base import Log
from pgtoolkit.scripts.engines.remote_command import RemoteCommand

STOPPED = 143
"""Exit code of a command that was stopped."""


@final
class RayJob:
    """A task."""

    def __init__(self, task: Any, log: Log) -> None:
        self.log, self._task = log, task

    def ended(self) -> bool:
        import ray

        return bool(ray.wait([self._task], timeout=0)[0])

    def stop(self) -> None:
        import ray

        if not self.ended():
            ray.cancel(self._task)

    def wait(self) -> int | None:
        import ray
        from ray import exceptions

        try:
            return int(ray.get(self._task))
        except exceptions.TaskCancelledError:
            return STOPPED
        except (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
        ):
            return None
        except exceptions.RayError as error:
            self.log.errors.write_text(f"error: {error}\n", encoding="utf-8")
            return 1


@final
class RayEngine:
    """Tasks of one core on the cluster of RAY_ADDRESS, or on one that begins and ends here.

    Args:
        options: of ``ray.init``, such as ``{"address": "auto"}``.

    Raises:
        RequestError: there is no such cluster, or no such option.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        import ray

        path = os.environ.get("PYTHONPATH", "")
        defaults: dict[str, Any] = {
            "logging_level": logging.ERROR,
            "log_to_driver": False,
            "include_dashboard": False,
            "runtime_env": {"env_vars": {"PYTHONPATH": path}},
        }
        try:
            ray.init(**defaults | dict(options))
        except (RuntimeError, ValueError, TypeError, ConnectionError) as error:
            raise RequestError(
                f"--engine ray: Ray refuses ({' '.join(str(error).split())}): see --engine-options "
                "and RAY_ADDRESS"
            ) from error
        # A lost task is started again by the schedule, which resumes its run.
        self._run = ray.remote(num_cpus=1, max_retries=0)(_call)

    def places(self, count: int) -> int:
        """The cores of the cluster."""
        ray: Any = importlib.import_module("ray")  # this function has no types
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def start(self, arguments: Sequence[str], log: Path) -> RayJob:
        command = RemoteCommand(list(arguments), log, Path.cwd())
        return RayJob(self._run.remote(command), Log.of(log))

    def batch(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def close(self) -> None:
        import ray

        ray.shutdown()


def _call(command: RemoteCommand) -> int:
    return command()
