"""Resets without a seed: determined by the seed before, or named."""

import random
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pgtoolkit.envs.checks.finding import Finding
from pgtoolkit.envs.checks.reproducible import check_seeding
from tests.envs.checks.test_ordinary import Sound

Array = NDArray[Any]


class UnseededReset(Sound):
    """A reset with a seed is determined by it; the others draw from elsewhere."""

    def elsewhere(self) -> float:
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is None:
            self.state = np.array([self.elsewhere(), 0.0])
        return self.seen(), {}


class FromPython(UnseededReset):
    def elsewhere(self) -> float:
        return random.random()


class FromNumpy(UnseededReset):
    def elsewhere(self) -> float:
        return float(np.random.rand())


class FromTorch(UnseededReset):
    def elsewhere(self) -> float:
        return float(torch.rand(()))


class FromTheSystem(UnseededReset):
    def elsewhere(self) -> float:
        return float(np.random.default_rng().random())


class FromItsOwn(UnseededReset):
    """The right way: the generator that the seed before has set."""

    def elsewhere(self) -> float:
        return float(self.np_random.random())


def resets(kind: Callable[[], Sound]) -> Finding:
    found = [f for f in check_seeding(kind(), 0) if f.check == "resets without a seed"]
    (finding,) = found
    return finding


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (FromPython, "random.random (global)"),
        (FromNumpy, "np.random (global)"),
        (FromTorch, "torch.rand (global)"),
        (FromTheSystem, "a generator that the seed before it does not set"),
    ],
)
def test_a_reset_without_a_seed_that_draws_elsewhere_is_named(
    kind: Callable[[], Sound], words: str
) -> None:
    """Training resets without a seed after the first, so its runs could not be repeated."""
    finding = resets(kind)
    assert finding.status == "warning" and words in finding.finding
    assert "cannot be repeated" in finding.meaning


def test_a_reset_that_goes_on_with_the_same_generator_is_right() -> None:
    """It is what Gymnasium says a reset without a seed does."""
    assert resets(FromItsOwn).status == resets(Sound).status == "pass"


def test_a_declared_nondeterminism_is_no_fault() -> None:
    """The registration may say that equal seeds do not give equal episodes."""

    class Own(Sound):
        generator = np.random.default_rng(0)

        def draw(self) -> Array:
            return self.generator.uniform(-1, 1, 2)

    env = Own()
    (finding,) = check_seeding(env, 0)
    assert finding.status == "fault"
    env.spec = gymnasium.envs.registration.EnvSpec("Own-v0", nondeterministic=True)
    (finding,) = check_seeding(env, 0)
    assert finding.status == "warning" and "as its registration says" in finding.finding
