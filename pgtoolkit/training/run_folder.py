"""A run's folder: configuration, TensorBoard events, policies, resume file, summary."""

import dataclasses
import itertools
import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self, final

import yaml

from pgtoolkit.errors import RequestError
from pgtoolkit.version import __version__


@final
@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of a run's files: ``config.yaml``, ``policy/``, ``resume.safetensors`` and others."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def resume_file(self) -> Path:
        """State from which the run can be resumed: agent, environments and progress."""
        return self.path / "resume.safetensors"

    def policy_file(self, which: Literal["best", "last"]) -> Path:
        """File with the policy alone: of the best evaluation so far, or of the last checkpoint.

        There is no best policy before the first evaluation.
        """
        return self.path / "policy" / f"{which}.safetensors"

    def saved_policy(self, which: Literal["best", "last"]) -> Path:
        """:meth:`policy_file`, but the last policy if there is no best one."""
        best = self.policy_file("best")
        return best if which == "best" and best.exists() else self.policy_file("last")

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> Self:
        """Makes the folder and writes ``config.yaml``: the settings and the packages' versions.

        Raises:
            RequestError: the folder already holds a run, or cannot be made.
        """
        run = cls(path)
        if run.config_file.exists():
            raise RequestError(
                f"{path} already holds a run: continue it with `pgtoolkit resume {path}`, or give "
                "another --run-dir"
            )
        try:
            run.policy_file("last").parent.mkdir(parents=True, exist_ok=True)
            run.write_config(dict(config) | {"versions": versions()})
        except OSError as error:
            raise RequestError(
                f"the run folder {path} cannot be made ({error.strerror}): give another --run-dir"
            ) from error
        return run

    @classmethod
    def open(cls, path: Path) -> tuple[Self, dict[str, Any]]:
        """An existing run, and its configuration as a dictionary.

        Raises:
            RequestError: there is no run there, or its configuration cannot be read.
        """
        run = cls(path)
        try:
            config = yaml.safe_load(run.config_file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RequestError(
                f"{path} holds no run (no {run.config_file.name}): name a folder that "
                "`pgtoolkit train` made"
            ) from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise RequestError(f"{run.config_file} cannot be read: {reason}") from error
        if not isinstance(config, dict):
            raise RequestError(f"{run.config_file} is not a run's configuration (no mapping in it)")
        return run, config

    def write_config(self, config: Mapping[str, Any]) -> None:
        _replace(self.config_file, yaml.safe_dump(dict(config), sort_keys=False))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        _replace(self.summary_file, json.dumps(dict(summary), indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    """Writes a text file atomically: under a temporary name that is then renamed."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def default_path(env_name: str, agent_name: str, seed: int) -> Path:
    """``runs/{env}__{agent}__{seed}__{UTC time}``, with a number appended if it exists already."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    env = "".join(c if c.isalnum() or c in "-_." else "-" for c in env_name)
    path = Path("runs") / f"{env}__{agent_name}__{seed}__{stamp}"
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not free.exists())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that influence numerical results."""
    found = {"pgtoolkit": __version__, "python": platform.python_version()}
    for package in ("torch", "gymnasium", "numpy", "mujoco"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
