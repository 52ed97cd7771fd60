"""Commands that install optional parts."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from pgtoolkit.extras import belongs_to, install_command, split_marker

REQUIREMENTS = [
    "torch>=2.4",
    'gymnasium[mujoco]; extra == "mujoco"',
    'jax>=0.4.30; extra == "jax"',
    "envpool>=1.1; sys_platform == 'linux' and extra == 'bench'",
    'jax>=0.4.30; extra == "bench"',
]


def test_the_command_names_the_packages_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It works from any folder, because it does not name this package."""
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIREMENTS)
    assert install_command("mujoco") == 'python -m pip install "gymnasium[mujoco]"'
    assert install_command("bench") == 'python -m pip install "envpool>=1.1" "jax>=0.4.30"'


def test_without_an_installation_the_command_is_for_the_folder_of_the_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert install_command("mujoco") == 'python -m pip install ".[mujoco]"'


def test_a_requirement_is_split_at_its_marker() -> None:
    assert split_marker('jax>=0.4.30; extra == "jax"') == ("jax>=0.4.30", 'extra == "jax"')
    assert split_marker("torch>=2.4") == ("torch>=2.4", "")


def test_an_extra_is_not_found_in_a_longer_name() -> None:
    assert not belongs_to('extra == "jaxlib"', "jax")
    assert not belongs_to("", "jax")


def test_every_extra_that_a_message_names_exists() -> None:
    from pgtoolkit.envs.registry.registered import EXTRA_OF_PACKAGE

    root = Path(__file__).parent.parent
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    named = {*EXTRA_OF_PACKAGE.values(), "plot", "video", "variational", "bench", "export"}
    assert named <= extras["optional-dependencies"].keys()
