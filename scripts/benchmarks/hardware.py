"""The machine that a benchmark runs on: one core, one thread, and its description."""

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = {
    "torch": "torch",
    "jax": "jax",
    "optax": "optax",
    "sb3": "stable-baselines3",
    "gymnasium": "gymnasium",
    "envpool": "envpool",
    "backpack": "backpack-for-pytorch",
    "numpy": "numpy",
}
"""Key in the JSON file to the package's name in the registry."""

THREAD_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
"""Environment variables, which the libraries read when they are imported."""

BUSY_LOAD_PER_CORE = 0.5
"""Load average per core above which timings are not reliable."""


def pin_to_one_core() -> None:
    """Restricts this process and its children to one core, and each library to one thread.

    Must be called before torch or JAX is imported. Environment variables that are already set keep
    their value.
    """
    for name, value in THREAD_VARIABLES.items():
        os.environ.setdefault(name, value)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def describe_machine() -> dict[str, str | float | int | None]:
    """Versions of Python and of the packages, the processor, its cores, and the load.

    The version of a package that is not installed is None.
    """
    versions = {name: _version(package) for name, package in PACKAGES.items()}
    return {
        "python": platform.python_version(),
        **versions,
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "load": load_average(),
    }


def is_busy(load: float | None) -> bool:
    """Whether the load average is too high for reliable timings; False if it is unknown."""
    return load is not None and load > BUSY_LOAD_PER_CORE * (os.cpu_count() or 1)


def load_average() -> float | None:
    """Mean number of runnable processes over the last minute; None where it is not available."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def processor() -> str:
    """The processor's name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
