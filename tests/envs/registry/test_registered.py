"""Ids without a version, and this package's environments of the same task."""

import logging

import pytest

import pgtoolkit.envs  # noqa: F401  # registers its environments
from pgtoolkit.envs.adapters.choose import choose_gradient
from pgtoolkit.envs.registry.registered import exact_twin, missing_package, with_version
from pgtoolkit.envs.registry.resolve import find_env


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("Pendulum", "Pendulum-v1"),
        ("pgtoolkit/Pendulum", "pgtoolkit/Pendulum-v0"),
        ("Pendulum-v1", "Pendulum-v1"),
        ("Nothing", "Nothing"),
        ("no id at all", "no id at all"),
        ("module:Id", "module:Id"),
    ],
)
def test_an_id_without_a_version_is_the_newest(
    given: str, used: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A message names the id that is used in its place; other ids stay as they are."""
    with caplog.at_level(logging.WARNING, "pgtoolkit"):
        assert with_version(given) == used
    said = [record.getMessage() for record in caplog.records]
    assert said == ([] if given == used else [f"{given} names no version: {used} is used"])


def test_a_source_without_a_version_has_the_whole_name() -> None:
    assert find_env("Pendulum").name == "Pendulum-v1"


def test_an_adapters_sentence_names_the_exact_environment() -> None:
    """Finite differences of Pendulum-v1 are approximate, and there is an exact Pendulum here."""
    assert exact_twin("Pendulum-v1") == "pgtoolkit/Pendulum-v0"
    assert exact_twin("Nothing-v1") is None and exact_twin("Hover") is None
    chosen = choose_gradient(find_env("Pendulum-v1"), needed=True)
    assert chosen.method == "finite-difference"
    assert "pgtoolkit/Pendulum-v0 is the task with an exact gradient" in chosen.sentence


def test_a_missing_part_of_an_installed_package_is_named() -> None:
    """MuJoCo is installed without MJX: the extra is that of MJX."""
    error = ImportError("cannot import name 'mjx' from 'mujoco' (/x/__init__.py)", name="mujoco")
    assert "needs mjx, which is not installed" in str(missing_package("X", error))
