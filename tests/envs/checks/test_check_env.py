"""``check_env`` on registered environments, and on an id, a file and an object."""

import inspect
from typing import Any

import pytest

from pgtoolkit.envs.checks.check_env import check_env
from pgtoolkit.envs.checks.finding import Finding
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.differentiable import DifferentiableEnv


def faults(found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.status == "fault"]


@pytest.mark.parametrize(
    "name",
    [
        "Pendulum-v1",
        "MountainCarContinuous-v0",
        "CartPole-v1",
        "Acrobot-v1",
        "InvertedPendulum-v5",
        "Reacher-v5",
        "Hopper-v5",
    ],
)
def test_gymnasiums_own_have_no_fault(name: str) -> None:
    """Discrete and continuous, with and without termination, with float32 and float64."""
    assert faults(check_env(name, seconds=0.5)) == []


@pytest.mark.parametrize("name", ["Chaos", "LQG", "Pendulum", "PointMass", "Step", "Wall"])
def test_the_suites_have_no_fault(name: str) -> None:
    """All that this package registers, checkers of other libraries included."""
    assert faults(check_env(f"pgtoolkit/{name}-v0", seconds=0.5, samples=16)) == []


def test_an_id_a_file_and_an_object_get_the_same_checks() -> None:
    """With differentiate none, the NumPy view is checked as an ordinary environment."""
    made: DifferentiableEnv[Any] = PointMass()
    by_object = check_env(made, seconds=0.3, samples=8)
    by_id = check_env("pgtoolkit/PointMass-v0", seconds=0.3, samples=8)
    by_file = check_env(f"{inspect.getfile(PointMass)}:PointMass", seconds=0.3, samples=8)
    checks = [f.check for f in by_object]
    assert checks == [f.check for f in by_id] == [f.check for f in by_file]
    plain = check_env(made, differentiate="none", seconds=0.3)
    assert "throughput" in [f.check for f in plain]
    assert not any(f.check.startswith("d ") for f in plain)
