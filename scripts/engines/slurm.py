"""Commands as jobs of Slurm, by submitit; those that start together are one array."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.scripts.cli.suggestions import did_you_mean
from pgtoolkit.scripts.engines.base import Log
from pgtoolkit.scripts.engines.remote_command import RemoteCommand

DEFAULTS = {"timeout_min": 720, "cpus_per_task": 1, "name": "pgtoolkit"}
"""submitit's parameters of a job, where the user gives none."""

LOST = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED")
"""States of a job whose machine was lost or taken away."""


@final
class SlurmJob:
    """A job that was submitted, or will be at the end of the batch."""

    def __init__(self, job: Any, log: Log) -> None:
        self.log, self._job = log, job

    def ended(self) -> bool:
        return bool(self._job.done())

    def stop(self) -> None:
        if not self.ended():
            self._job.cancel()

    def wait(self) -> int | None:
        from submitit.core import utils

        try:
            return int(self._job.result())
        except (utils.UncompletedJobError, utils.FailedJobError) as error:
            if self._job.state in LOST:
                return None
            self.log.errors.write_text(f"error: {error}\n", encoding="utf-8")
            return 1


NAMES = (
    "cluster",
    "cpus_per_task",
    "gpus_per_node",
    "mem_gb",
    "name",
    "nodes",
    "stderr_to_stdout",
    "tasks_per_node",
    "timeout_min",
)
"""Options of all of submitit's clusters; those of one begin with its name, as ``slurm_`` does."""


def require_known(options: Mapping[str, Any]) -> None:
    """Asks whether there are such options, before a cluster is looked for.

    Raises:
        RequestError: one is unknown.
    """
    for name in options:
        if name not in NAMES and not name.startswith(("slurm_", "local_")):
            raise RequestError(
                f"--engine slurm: submitit has no option {name}; "
                f"{did_you_mean(name, NAMES)}it has {join_names(NAMES)}, and those that begin with "
                "slurm_"
            )


@final
class SlurmEngine:
    """Jobs of Slurm; a job that is preempted, or at the end of its time, goes on in a new one.

    Args:
        folder: for submitit's files and what its jobs print; all machines must see it.
        options: submitit's parameters, such as ``{"slurm_partition": "cpu", "timeout_min": 240}``;
            ``{"cluster": "local"}`` runs the jobs on this machine, to try.

    Raises:
        RequestError: there is no Slurm here, or no such parameter.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        import submitit

        require_known(options)
        rest = dict(options)
        cluster = rest.pop("cluster", "slurm")
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster)
            self._executor.update_parameters(**DEFAULTS | rest)
        except (ValueError, RuntimeError, NameError, TypeError, AssertionError) as error:
            raise RequestError(
                f"--engine slurm: submitit refuses ({' '.join(str(error).split())}): run it where "
                'sbatch is, or try it with --engine-options \'{"cluster": "local"}\''
            ) from error

    def places(self, count: int) -> int:
        """All: Slurm has the queue."""
        return count

    def start(self, arguments: Sequence[str], log: Path) -> SlurmJob:
        command = RemoteCommand(list(arguments), log, Path.cwd())
        return SlurmJob(self._executor.submit(command), Log.of(log))

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """The jobs that are submitted in the block are one array."""
        with self._executor.batch(allow_implicit_submissions=True):
            yield

    def close(self) -> None:
        pass
