"""The machine that a benchmark runs on: one core, one thread, and what is installed."""

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

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
"""Read by the libraries when they are imported."""

BUSY = 0.5
"""Load per core from which timings are not to be trusted."""


def pin() -> None:
    """This process, its threads and its children to one core and to one thread a library.

    Called before torch or JAX is imported. What the environment already sets is left as it is.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def versions() -> dict[str, str | float | int | None]:
    """Of Python and of the packages; the processor; how busy the machine is."""
    found = {name: _version(package) for name, package in PACKAGES.items()}
    return {
        "python": platform.python_version(),
        **found,
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "load": load(),
    }


def busy(load: float | None) -> bool:
    """Whether others use the machine so much that timings are not to be trusted."""
    return load is not None and load > BUSY * (os.cpu_count() or 1)


def load() -> float | None:
    """Processes that wanted to run, a mean over the last minute; None where nobody counts them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def processor() -> str:
    """The processor's name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
