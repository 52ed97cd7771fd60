"""Environments that are legal in Gymnasium and unusual: no fault, and no more than a warning."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.envs.checks import library_checkers
from pgtoolkit.envs.checks.check_env import check_env
from pgtoolkit.envs.checks.finding import Finding
from tests.envs.checks.test_ordinary import Sound

Array = NDArray[Any]


class NumpyFlags(Sound):
    def step(self, action: Array) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, np.float32(reward), np.bool_(terminated), np.bool_(truncated), info


class ZeroDimensionalReward(Sound):
    def paid(self) -> Any:
        return np.array(super().paid())


class NewSpaces(Sound):
    """Makes its spaces anew at every reset, so that a seed which they were given is lost."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.observation_space = Box(-10.0, 10.0, (2,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        return super().reset(seed=seed)


class ConstantTable(Sound):
    """Its observations are rows of a table that never changes."""

    table = np.random.default_rng(0).uniform(-1, 1, (41, 2)).astype(np.float32)

    def seen(self) -> Array:
        return np.asarray(self.table[self.steps % 41])


class ListObservation(Sound):
    def seen(self) -> Any:
        return [float(x) for x in self.state]


class SingleObservation(Sound):
    """Numbers of float32 are numbers of float64."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(-10.0, 10.0, (2,), np.float64)


class Goal(Sound):
    """A goal environment, whose rewards are of float32."""

    def __init__(self) -> None:
        super().__init__()
        box = Box(-10.0, 10.0, (2,), np.float64)
        names = ("observation", "achieved_goal", "desired_goal")
        self.observation_space: Any = spaces.Dict({name: box for name in names})

    def seen(self) -> Any:
        return {
            "observation": self.state.copy(),
            "achieved_goal": self.state.copy(),
            "desired_goal": np.zeros(2),
        }

    def compute_reward(self, achieved: Array, desired: Array, info: Any) -> Any:
        return -np.linalg.norm(achieved - desired, axis=-1).astype(np.float32)

    def paid(self) -> Any:
        return self.compute_reward(self.state, np.zeros(2), {})


class OddInfos(Sound):
    """Infos of varying length that are not comparable; no agent reads them."""

    def step(self, action: Array) -> Any:
        *rest, _ = super().step(action)
        return *rest, {"path": np.zeros(self.steps), "object": object()}


class TableAsLongAsTheLimit(Sound):
    """It cannot be stepped beyond nine steps, after which a wrapper truncates it."""

    limit = 10**9

    def paid(self) -> float:
        return float(np.arange(10.0)[self.steps])


def limited_table() -> gymnasium.Env[Array, Array]:
    return gymnasium.wrappers.TimeLimit(TableAsLongAsTheLimit(), 9)


class NoSuperReset(Sound):
    """Seeds a generator of its own and leaves Gymnasium's alone."""

    generator = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None:
            self.generator = np.random.default_rng(seed)
        self.state, self.steps = self.generator.uniform(-1, 1, 2), 0
        return self.seen(), {}


SOUND: list[Callable[[], gymnasium.Env[Any, Any]]] = [
    NumpyFlags,
    ZeroDimensionalReward,
    NewSpaces,
    ConstantTable,
    ListObservation,
    SingleObservation,
    Goal,
    OddInfos,
    limited_table,
    NoSuperReset,
]


@pytest.mark.parametrize("kind", SOUND)
def test_what_is_legal_is_no_fault(kind: Callable[[], gymnasium.Env[Any, Any]]) -> None:
    """Other libraries' checkers complain of most of these."""
    found = check_env(kind(), seconds=0.3)
    assert [f for f in found if f.status == "fault"] == []


def test_nan_twice_is_deterministic() -> None:
    """The fault is the NaN itself."""

    class Nan(Sound):
        def seen(self) -> Array:
            return np.array([np.nan, 1.0], np.float32)

    found = [f.check for f in check_env(Nan(), seconds=0.3) if f.status == "fault"]
    assert found == ["finite"]


def outcome(call: Callable[[], None]) -> Finding:
    return library_checkers._outcome(library_checkers.SB3, Sound(), call)


def test_a_checker_that_breaks_says_nothing() -> None:
    """An error that is not the checker's own statement leaves the check undone."""

    def breaks() -> None:
        raise AttributeError("'NoneType' object has no attribute 'shape'")

    finding = outcome(breaks)
    assert finding.status == "not checked"
    assert "AttributeError: 'NoneType' object has no attribute 'shape'" in finding.finding

    def asserts_elsewhere() -> None:
        raise AssertionError("an assertion of another library")

    assert outcome(asserts_elsewhere).status == "not checked"


def test_a_checkers_statement_is_a_warning() -> None:
    """Gymnasium's checker asserts that a NumPy boolean is not False."""
    env = NumpyFlags()
    (finding,) = library_checkers.check_with_gymnasium(env, env)
    assert finding.status == "warning" and "truncates after 1 step" in finding.finding
