"""The names of the engines."""

from typing import Literal

EngineName = Literal["local", "ray", "slurm"]
"""Values of ``--engine``."""
