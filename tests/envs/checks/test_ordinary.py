"""``check_env`` on ordinary environments: broken ones are named, a sound one is not."""

import random
import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.envs.checks.check_env import check_env

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


class LongIntegers(Sound):
    def seen(self) -> Array:
        return np.array([2**24 + 1, 0])


class FractionsAsIntegers(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(0, 255, (2,), np.uint8)

    def seen(self) -> Array:
        return np.array([0.5, 0.25])


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
    FractionsAsIntegers: ("dtype", "an observation of float64, its space says uint8"),
    LongObservation: ("shapes", "an observation [3], its space has [2]"),
    RewardArray: ("shapes", "a reward of shape [1]"),
    NanAtReset: ("finite", "NaN or infinity at a reset"),
    Raises: ("types", "test_ordinary.py, line"),
    ShortStep: ("results", "step returned 4 values, not (observation, reward, terminated"),
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_ordinary_environment_is_named(kind: Callable[[], Sound]) -> None:
    """The check that it fails reports a fault."""
    check, words = BROKEN[kind]  # type: ignore[index]
    found = [f for f in check_env(kind(), seconds=0.5) if f.status == "fault"]
    assert any(f.check == check and words in f.finding for f in found), found


@pytest.mark.parametrize("kind", [DoubleObservation, LongIntegers])
def test_digits_that_training_drops_are_a_warning(kind: Callable[[], Sound]) -> None:
    """Training converts such observations; whoever reads the page knows what that costs."""
    found = [f for f in check_env(kind(), seconds=0.5) if f.check == "dtype"]
    assert [f.status for f in found] == ["warning"]
    assert "converted, and digits that float32 does not hold are lost" in found[0].meaning


def test_the_advice_on_an_old_reset_works_as_it_is_printed() -> None:
    """The call of ``super().reset`` that it names is one that Gymnasium takes."""

    class OldReset(Sound):
        def reset(self) -> tuple[Array, dict[str, Any]]:  # type: ignore[override]
            return self.seen(), {}

    advice = next(f.advice for f in check_env(OldReset(), seconds=0.5) if f.check == "results")
    call = re.search(r"super\(\)\.(reset\(.*?\))", advice)
    assert call is not None
    eval(f"Env().{call[1]}", {"Env": gymnasium.Env, "seed": 0})


def test_a_sound_ordinary_environment_has_no_fault() -> None:
    """The one that all the broken ones are made of."""
    found = check_env(Sound(), seconds=0.5)
    assert [f for f in found if f.status != "pass"] == []


def test_observations_out_of_their_space_are_a_warning() -> None:
    """Training reads no bounds of observations; Gymnasium's own checker warns of them, too."""
    (found,) = [f for f in check_env(OutOfSpace(), seconds=0.5) if f.check == "observation space"]
    assert found.status == "warning" and "observations are out of their space" in found.finding


def test_no_end_is_a_warning() -> None:
    """Agents that wait for whole episodes would wait for ever."""
    found = check_env(NoEnd(), seconds=2.0)
    assert ("termination", "warning") in [(f.check, f.status) for f in found]


def test_it_leaves_global_generators_as_they_were() -> None:
    """The checks reseed them to find out who draws from them, and restore them."""
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    check_env(NumpyStart(), seconds=0.3)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected
