"""The engine that a command's options name."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgtoolkit.errors import RequestError, SettingError
from pgtoolkit.extras import install_command
from pgtoolkit.scripts.cli.arguments import parse_json_object
from pgtoolkit.scripts.engines.base import Engine
from pgtoolkit.scripts.engines.local import LocalEngine
from pgtoolkit.scripts.engines.names import EngineName

PACKAGES = {"ray": "ray", "slurm": "submitit"}
"""The package that an engine needs, of the extra with the engine's name."""


@contextmanager
def engine_of(name: EngineName, options: str, folder: Path) -> Iterator[Engine]:
    """A block in which there is the engine.

    Args:
        name: value of ``--engine``.
        options: a JSON object for the engine.
        folder: for files that all machines must see.

    Raises:
        RequestError: its package is missing, or it does not take these options.
    """
    given = parse_json_object(options, "--engine-options")
    engine: Engine
    if name == "local":
        if given:
            raise RequestError("--engine-options are for --engine ray and slurm: leave them out")
        engine = LocalEngine()
    else:
        package = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise SettingError(f"--engine {name} needs {package}: {install_command(name)}")
        if name == "ray":
            from pgtoolkit.scripts.engines.ray_cluster import RayEngine

            engine = RayEngine(given)
        else:
            from pgtoolkit.scripts.engines.slurm import SlurmEngine

            engine = SlurmEngine(folder / "submitit", given)
    try:
        yield engine
    finally:
        engine.close()
