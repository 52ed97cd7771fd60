"""Rounded observations and rewards, in ordinary and in differentiable environments."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.adapters.gymnasium.adapter import finite_difference
from pgtoolkit.envs.checks.differentiable import check_differentiable
from pgtoolkit.envs.checks.finding import Finding
from pgtoolkit.envs.checks.rounding import check_rounding, rounded_columns
from pgtoolkit.envs.differentiable import GradientInfo
from tests.envs.checks import test_differentiable as differentiable
from tests.envs.checks import test_ordinary as ordinary

Array = NDArray[Any]


class Exact(ordinary.Sound):
    """The sound environment with observations in double precision and no limit of its own."""

    limit = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(-10.0, 10.0, (2,), np.float64)

    def seen(self) -> Array:
        return self.state.copy()


class Rounded(Exact):
    def seen(self) -> Array:
        return self.state.round(3)

    def paid(self) -> float:
        return round(super().paid(), 3)


class InSingle(Exact):
    """Rounding to single precision is allowed for by a longer step."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(-10.0, 10.0, (2,), np.float32)

    def seen(self) -> Array:
        return self.state.astype(np.float32)


class Flag(Exact):
    """A number of two values, and one that counts steps: neither has a slope to lose."""

    def seen(self) -> Array:
        return np.array([float(self.state[1] > 0), self.steps / 7])


class Clipped(Exact):
    def seen(self) -> Array:
        return np.clip(40 * self.state, -1, 1)


class Offset(Exact):
    """Actions in float32 that a step of 1e-6 of their range does not move."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(4095.0, 4096.0, (1,), np.float32)

    def step(self, action: Array) -> Any:
        return super().step(np.asarray(action, dtype=np.float64) - 4095.5)


class HalfInfinite(Exact):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(0.0, np.inf, (1,), np.float32)

    def step(self, action: Array) -> Any:
        assert self.action_space.contains(action)
        return super().step(action)


def test_rounded_numbers_are_named() -> None:
    """Both observations and the reward; a difference's step moves none of them."""
    (finding,) = check_rounding(Rounded(), 0)
    assert finding.status == "warning"
    assert "observation[0], observation[1], the reward are rounded" in finding.finding


@pytest.mark.parametrize("kind", [Exact, InSingle, Flag, Clipped, Offset, HalfInfinite])
def test_numbers_that_are_not_rounded_are_not_named(kind: Any) -> None:
    """Single precision, flags, counters and clipped numbers are no grids."""
    (finding,) = check_rounding(kind(), 0)
    assert finding.status == "pass", finding


def test_columns_on_a_grid() -> None:
    """``round(x, 2)`` and ``x`` itself, moved by 1e-6 and by 1/16."""
    x = np.random.default_rng(0).uniform(-1, 1, 50)
    usual, near, far = (
        np.stack([np.round(x + move, 2), x + move], 1) for move in (0.0, 1e-6, 1 / 16)
    )
    assert rounded_columns(usual, near, far).tolist() == [0]


class RoundedInTorch(differentiable.Sound):
    def observation(self, state: Tensor) -> Tensor:
        return torch.round(super().observation(state) * 100) / 100


class RoundedAndSaysSo(RoundedInTorch):
    gradient = GradientInfo(state="approximate")


def rounding(env: Any) -> Finding:
    found = check_differentiable(env, seed=0, samples=24, seconds=0.5, progress=lambda stage: None)
    (finding,) = [f for f in found if f.check == "rounding"]
    return finding


def test_a_grid_of_rounding_errors_is_none() -> None:
    """All floats are multiples of a tiny gap: noise in the last place is no rounding."""
    once = np.random.default_rng(0).uniform(0, 1e-3, 20)
    usual = np.concatenate([once, np.nextafter(once, 1)])[:, None]
    far = usual + 1e-4
    assert len(rounded_columns(usual, usual.copy(), far)) == 0


def test_a_rounded_observation_of_a_differentiable_environment() -> None:
    """A fault where derivatives are said to be exact."""
    assert rounding(differentiable.Sound()).status == "pass"
    finding = rounding(RoundedInTorch())
    assert finding.status == "fault" and "observation[0], observation[1] are" in finding.finding
    assert rounding(RoundedAndSaysSo()).status == "warning"


def flagged(kind: Any) -> float:
    """The share of steps that finite differences flag, at 24 steps of random play."""
    env = finite_difference(kind, max_episode_steps=40)
    generator = torch.Generator().manual_seed(0)
    state = env.initial(24, generator)
    action = torch.rand(24, 1, generator=generator).double() - 0.5
    state = env.transition(state, action, None)
    after = env.transition(state, action.requires_grad_(), None)
    torch.autograd.grad(after.reward.sum() + after.observation.sum(), action)
    return float(env.metrics()["environment/flagged_steps"])


def test_finite_differences_flag_rounded_steps() -> None:
    """All of them, while a smooth environment, also in single precision, is not flagged."""
    assert flagged(Rounded) == 1.0
    assert flagged(Exact) == flagged(InSingle) == 0.0


def test_the_effect_of_an_action_is_seen_through_rounding() -> None:
    """An action that moves rounded numbers is not called one without an effect."""
    env = finite_difference(Rounded, max_episode_steps=40)
    found = check_differentiable(env, seed=0, samples=16, seconds=0.5, progress=lambda stage: None)
    assert "actions" not in [f.check for f in found]
    (finding,) = [f for f in found if f.check == "rounding"]
    assert finding.status == "warning"
