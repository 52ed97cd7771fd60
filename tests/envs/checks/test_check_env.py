"""``pgtoolkit check-env`` and ``check_env``: ordinary environments, ids, files, exit codes."""

import inspect
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.envs.checks.check_env import check_env
from pgtoolkit.envs.checks.finding import Finding, Status
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.scripts import check_env as command
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.cli.check_env_report import summary

Array = NDArray[Any]
Step = tuple[Array, float, bool, bool, dict[str, Any]]


class Sound(gymnasium.Env[Array, Array]):
    """A point on a line, pushed to 0; nothing wrong with it."""

    limit = 40

    def __init__(self) -> None:
        self.observation_space = Box(-10.0, 10.0, (2,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self.state, self.steps = np.zeros(2), 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.steps = self.draw(), 0
        return self.seen(), {}

    def step(self, action: Array) -> Step:
        position, velocity = self.state
        velocity = 0.9 * velocity + 0.1 * float(action[0])
        self.state = np.array([position + 0.1 * velocity, velocity])
        self.steps += 1
        return self.seen(), self.paid(), self.fallen(), self.steps >= self.limit, {}

    def draw(self) -> Array:
        return self.np_random.uniform(-1, 1, 2)

    def seen(self) -> Array:
        return self.state.astype(np.float32)

    def paid(self) -> float:
        return float(-np.square(self.state).sum())

    def fallen(self) -> bool:
        return False


class TimeLimitAsTermination(Sound):
    limit = 10**9

    def fallen(self) -> bool:
        return self.steps >= 35


class NoEnd(Sound):
    limit = 10**9


class NumpyStart(Sound):
    def draw(self) -> Array:
        return np.random.uniform(-1, 1, 2)


class PythonReward(Sound):
    def paid(self) -> float:
        return super().paid() + random.random()


class TorchObservation(Sound):
    def seen(self) -> Array:
        return super().seen() + 0.01 * torch.rand(2).numpy()


class SeedsNumpy(Sound):
    def draw(self) -> Array:
        np.random.seed(0)
        return np.array([0.1, 0.2])


class OwnGenerator(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng()

    def paid(self) -> float:
        return super().paid() + self.generator.random()


class SeedIgnored(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(0)

    def draw(self) -> Array:
        return self.generator.uniform(-1, 1, 2)


class SeedFixed(SeedIgnored):
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        if seed is not None:
            self.generator = np.random.default_rng(0)
        return super().reset(seed=seed)


class DoubleObservation(Sound):
    def seen(self) -> Array:
        return self.state.copy()


class SingleObservation(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(-10.0, 10.0, (2,), np.float64)


class LongObservation(Sound):
    def seen(self) -> Array:
        return np.zeros(3, np.float32)


class RewardArray(Sound):
    def paid(self) -> Any:
        return np.array([super().paid()])


class NanAtReset(Sound):
    def draw(self) -> Array:
        start = super().draw()
        return np.array([np.nan, 0.0]) if abs(start[0]) < 0.1 else start


class OutOfSpace(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(-0.3, 0.3, (2,), np.float32)


class Raises(Sound):
    def paid(self) -> float:
        return float(self.state[7])


class ShortStep(Sound):
    def step(self, action: Array) -> Any:
        return super().step(action)[:4]


BROKEN: dict[type[Sound], tuple[str, str]] = {
    TimeLimitAsTermination: ("termination", "a time limit is reported as termination"),
    NumpyStart: ("seeding", "global randomness: an episode draws from, or seeds, np.random"),
    PythonReward: ("seeding", "global randomness: an episode draws from, or seeds, random.random"),
    TorchObservation: ("seeding", "global randomness: an episode draws from, or seeds, torch.rand"),
    SeedsNumpy: ("seeding", "global randomness: an episode draws from, or seeds, np.random"),
    OwnGenerator: ("determinism", "the same seed and actions give different episodes"),
    SeedIgnored: ("determinism", "the same seed and actions give different episodes"),
    SeedFixed: ("seeding", "the seed is ignored"),
    DoubleObservation: ("dtype", "an observation of float64, its space says float32"),
    SingleObservation: ("dtype", "an observation of float32, its space says float64"),
    LongObservation: ("shapes", "an observation [3], its space has [2]"),
    RewardArray: ("shapes", "a reward of shape [1]"),
    NanAtReset: ("finite", "NaN or infinity at a reset"),
    OutOfSpace: ("observation space", "observations are out of their space"),
    Raises: ("types", "test_check_env.py, line"),
    ShortStep: ("seeding", "not enough values to unpack"),
}


def faults(found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.status == "fault"]


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit check-env ARGUMENTS``, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(command.run, arguments)
    return int(caught.value.code or 0)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_ordinary_environment_is_named(kind: Callable[[], Sound]) -> None:
    """By a fault of the check it fails."""
    check, words = BROKEN[kind]  # type: ignore[index]
    found = faults(check_env(kind(), seconds=0.5))
    assert any(f.check == check and words in f.finding for f in found), found


def test_a_sound_ordinary_environment_has_no_fault() -> None:
    """The one that all the broken ones are made of."""
    found = check_env(Sound(), seconds=0.5)
    assert [f for f in found if f.status != "pass"] == []


def test_no_end_is_a_warning() -> None:
    """Agents that wait for whole episodes should hear of it."""
    found = check_env(NoEnd(), seconds=2.0)
    assert ("termination", "warning") in [(f.check, f.status) for f in found]


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


def test_exit_codes_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 without a fault, 1 with one, 2 for a wrong request; JSON has what the page has."""
    file = tmp_path / "findings.json"
    quick = ("--samples", "8", "--seconds", "0.3", "--json", str(file))
    assert call("pgtoolkit/PointMass-v0", *quick) == 0
    page = capsys.readouterr().out
    rows = json.loads(file.read_text())
    assert {tuple(row) for row in rows} == {
        ("part", "check", "status", "finding", "meaning", "advice")
    }
    assert {row["status"] for row in rows} <= {"pass", "warning", "fault"}
    assert all(row["check"] in page for row in rows)
    assert len(page.splitlines()) <= 60
    broken = f"{__file__}:TimeLimitAsTermination"
    assert call(broken, *quick) == 1
    assert "fault" in capsys.readouterr().out
    assert any(row["status"] == "fault" for row in json.loads(file.read_text()))
    assert call("NoSuchEnvironment-v0") == 2
    assert call("Pendulum-v1", "--samples", "0") == 2
    assert call("Pendulum-v1", "--env-kwargs", '{"mass": 1}') == 2
    assert call("Pendulum-v1", "--json", str(tmp_path / "missing" / "file.json")) == 2


def test_all_three_forms_and_both_faces() -> None:
    """An id, a file and an object are looked at alike; differentiate none sees the NumPy view."""
    made: DifferentiableEnv[Any] = PointMass()
    by_object = check_env(made, seconds=0.3, samples=8)
    by_id = check_env("pgtoolkit/PointMass-v0", seconds=0.3, samples=8)
    by_file = check_env(f"{inspect.getfile(PointMass)}:PointMass", seconds=0.3, samples=8)
    checks = [f.check for f in by_object]
    assert checks == [f.check for f in by_id] == [f.check for f in by_file]
    plain = check_env(made, differentiate="none", seconds=0.3)
    assert "throughput" in [f.check for f in plain]
    assert not any(f.check.startswith("d ") for f in plain)


def test_it_leaves_global_generators_as_they_were() -> None:
    """It reseeds them to find out who uses them, and puts them back."""
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    check_env(NumpyStart(), seconds=0.3)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


def test_an_error_is_named_by_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, but where to look."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from pgtoolkit.envs.control.point_mass import PointMass\n"
        "from pgtoolkit.envs.differentiable import DifferentiableEnv\n\n"
        "class Mine(DifferentiableEnv):\n"
        "    observation_space = PointMass().observation_space\n"
        "    action_space = PointMass().action_space\n"
        "    max_episode_steps = 5\n"
        "    initial = PointMass.initial\n"
        "    transition = PointMass.transition\n"
        "    observation = PointMass.observation\n"
        "    terminal = PointMass.terminal\n"
        "    def reward(self, state, action, next_state):\n"
        "        return 1 / 0\n"
    )
    assert call(f"{file}:Mine", "--json", str(tmp_path / "found.json")) == 1
    found = [row["finding"] for row in json.loads((tmp_path / "found.json").read_text())]
    assert any("mine.py, line 13: ZeroDivisionError" in text for text in found)
    assert "Traceback" not in capsys.readouterr().out


def test_the_page_counts() -> None:
    """In words that agree with the numbers."""

    def some(status: Status, count: int) -> list[Finding]:
        return [Finding(part="horizon", check="c", status=status, finding="f")] * count

    found = [*some("fault", 1), *some("warning", 2)]
    assert summary(found) == "1 fault, 2 warnings, 0 passes"
    assert summary(some("pass", 1)) == "0 faults, 0 warnings, 1 pass"
