"""``check_env`` on differentiable environments: broken ones are named, sound ones are not."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.checks.differentiable import check_differentiable
from pgtoolkit.envs.checks.finding import Finding
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo


class Sound(DifferentiableEnv[Tensor]):
    """A damped point on a line ``[N, 2]``, pushed to 0; nothing wrong with it."""

    max_episode_steps = 30

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(num_envs, 2, generator=generator) - 1

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        position, velocity = state.unbind(-1)
        velocity = 0.9 * velocity + 0.1 * (action[:, 0] - torch.sin(position))
        return torch.stack([position + 0.1 * velocity, velocity], -1)

    def observation(self, state: Tensor) -> Tensor:
        return torch.stack([torch.sin(state[:, 0]), state[:, 1]], -1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -next_state.square().sum(-1) - 0.01 * action.square().sum(-1)

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros(state.shape[0], dtype=torch.bool)


class InPlaceState(Sound):
    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        state[:, 1] += 0.1 * action[:, 0]
        return state


class AugmentedAction(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -action.clamp_(-0.5, 0.5).square().sum(-1) - next_state.square().sum(-1)


class DetachedReward(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state, action, next_state).detach()


class PartlyDetachedReward(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state, action, next_state.detach())


class DetachedTransition(Sound):
    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return super().transition(state.detach(), action, noise)


class ItemInTransition(Sound):
    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        pushes = [a.item() for a in action[:, 0]]
        return super().transition(state, state.new_tensor(pushes)[:, None], noise)


class NumpyInReward(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.from_numpy(-np.square(next_state.numpy()).sum(-1))


class WrongSignTransition(Sound):
    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        # The value of action, and the derivative -1.
        return super().transition(state, 2 * action.detach() - action, noise)


class WrongSignReward(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        value = super().reward(state, action, next_state)
        return 2 * value.detach() - value


class HalfObservationGradient(Sound):
    def observation(self, state: Tensor) -> Tensor:
        seen = super().observation(state)
        return 0.5 * seen + 0.5 * seen.detach()


class TorchRandomness(Sound):
    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return super().transition(state, action, noise) + 0.1 * torch.rand(2)


class NumpyRandomness(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state, action, next_state) + float(np.random.rand())


class PythonRandomness(Sound):
    def observation(self, state: Tensor) -> Tensor:
        return super().observation(state) + 1e-3 * random.random()


class GlobalStart(Sound):
    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.randn(num_envs, 2)


class Reseeds(Sound):
    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        torch.manual_seed(0)
        return super().initial(num_envs, generator)


class SeedIgnored(Sound):
    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return super().initial(num_envs, torch.Generator().manual_seed(7))


class OwnGenerator(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(0)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return super().transition(state, action, noise) + 0.1 * self.generator.random()


class Remembers(Sound):
    last = 0.0

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        self.last = float(action.detach().reshape(-1)[0])
        return super().transition(state, action, noise)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state, action, next_state) - self.last


class CountsSteps(Sound):
    """Ends by a counter that is not in the state."""

    steps = 0

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        self.steps = 0
        return super().initial(num_envs, generator)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        self.steps += 1
        return super().transition(state, action, noise)

    def terminal(self, state: Tensor) -> Tensor:
        return torch.full((state.shape[0],), self.steps >= self.max_episode_steps)


class ClippedOnBothSides(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return 1e4 * (next_state[:, 0] * 1e4).clamp(-1e-4, 1e-4)


class ClippedBelow(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state, action, next_state).clamp(min=-0.005)


class Rounded(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.round(10 * super().reward(state, action, next_state)) / 10


class RewardInSingle(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state, action, next_state).float()


class StateInDouble(Sound):
    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return super().transition(state, action, noise) * torch.ones(2, dtype=torch.float64)


class RoundedToSingle(Sound):
    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return super().transition(state, action, noise).float().to(state.dtype)


class MatrixInDouble(Sound):
    def observation(self, state: Tensor) -> Tensor:
        return state @ torch.eye(2, dtype=torch.float64)


class RewardOfTwoDimensions(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state, action, next_state)[:, None]


class ShortObservation(Sound):
    def observation(self, state: Tensor) -> Tensor:
        return state[:, :1]


class Squeezed(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -next_state[:, :1].square().squeeze()


class TerminalNumbers(Sound):
    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros(state.shape[0])


class TerminalFlag(Sound):
    def terminal(self, state: Tensor) -> Any:
        return False


class NoTimeLimit(Sound):
    max_episode_steps = None  # type: ignore[assignment]


class NoReward(Sound):
    reward = None  # type: ignore[assignment]


class UndeclaredNoise(Sound):
    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return super().transition(state, action, None) + 0.1 * noise  # type: ignore[operator]


class NotAState(Sound):
    def initial(self, num_envs: int, generator: torch.Generator) -> Any:
        return super().initial(num_envs, generator).numpy()


class NeverCountsAnew(Sound):
    """All its episodes end by a counter of calls that is never reset."""

    steps = 0

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        self.steps += 1
        return super().transition(state, action, noise)

    def terminal(self, state: Tensor) -> Tensor:
        return torch.full((state.shape[0],), self.steps >= 30)


class NanInState(Sound):
    """A NaN at the start that is not seen, and goes away at the first step."""

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        whole = super().initial(num_envs, generator)
        return torch.cat([whole, torch.full((num_envs, 1), torch.nan)], -1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        body = super().transition(state[:, :2], action, noise)
        return torch.cat([body, body[:, :1]], -1)

    def observation(self, state: Tensor) -> Tensor:
        return super().observation(state[:, :2])

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state[:, :2], action, next_state[:, :2])


class Timed(NamedTuple):
    body: Tensor
    steps: Tensor


class TimeLimitAsTermination(DifferentiableEnv[Timed]):
    """The sound one with a clock in its state, and an end by the clock."""

    max_episode_steps = 25

    def __init__(self) -> None:
        self.sound = Sound()
        self.observation_space = self.sound.observation_space
        self.action_space = self.sound.action_space

    def initial(self, num_envs: int, generator: torch.Generator) -> Timed:
        body = self.sound.initial(num_envs, generator)
        return Timed(body, torch.zeros(num_envs, dtype=torch.int64))

    def transition(self, state: Timed, action: Tensor, noise: Tensor | None) -> Timed:
        return Timed(self.sound.transition(state.body, action, noise), state.steps + 1)

    def observation(self, state: Timed) -> Tensor:
        return self.sound.observation(state.body)

    def reward(self, state: Timed, action: Tensor, next_state: Timed) -> Tensor:
        return self.sound.reward(state.body, action, next_state.body)

    def terminal(self, state: Timed) -> Tensor:
        return state.steps >= self.max_episode_steps


class TimeLimitBesideFalls(TimeLimitAsTermination):
    """Most episodes end by themselves; the others by the clock, far beyond what play reaches."""

    max_episode_steps = 5000

    def terminal(self, state: Timed) -> Tensor:
        return super().terminal(state) | (state.body[:, 0].abs() > 1.02)


class FiniteHorizon(TimeLimitAsTermination):
    """A clock ends the episode, and the last step's reward differs: the end is part of the task."""

    def reward(self, state: Timed, action: Tensor, next_state: Timed) -> Tensor:
        usual = super().reward(state, action, next_state)
        return torch.where(self.terminal(next_state), 10 * usual, usual)


class SeesTheTime(TimeLimitAsTermination):
    """A clock ends the episode, and the observation contains it."""

    def observation(self, state: Timed) -> Tensor:
        return torch.stack([state.body[:, 0], state.steps.to(state.body) / 25], -1)


class TimeInColumn(Sound):
    """A third number of the state counts steps, 0.05 for each."""

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        body = super().initial(num_envs, generator)
        return torch.cat([body, torch.zeros(num_envs, 1)], -1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        body = super().transition(state[:, :2], action, noise)
        return torch.cat([body, state[:, 2:] + 0.05], -1)

    def observation(self, state: Tensor) -> Tensor:
        return super().observation(state[:, :2])

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state[:, :2], action, next_state[:, :2])

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 2] > 0.99


class NanAtReset(Sound):
    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        state = super().initial(num_envs, generator)
        # In one start of twenty-five.
        return torch.where((state[:, :1] - 0.1).abs() < 0.04, torch.nan, state)


class NanRewardLater(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.sqrt(0.9 - next_state[:, 0])


class NanGradientAtReset(Sound):
    """It starts at rest, where the norm of the speed has no derivative."""

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return super().initial(num_envs, generator) * torch.tensor([1.0, 0.0])

    def observation(self, state: Tensor) -> Tensor:
        return torch.stack([state[:, 0], torch.sqrt(state[:, 1] ** 2)], -1)


class NanGradientBehindWhere(Sound):
    """The value is safe at rest, the derivative of the branch not taken is not."""

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return super().initial(num_envs, generator) * torch.tensor([1.0, 0.0])

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        speed = state[:, 1].abs()
        return -torch.where(speed > 0, speed.sqrt(), 0 * speed) - next_state[:, 0] ** 2


class RowsMixed(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        reward = super().reward(state, action, next_state)
        return reward - reward.mean()


class WorldInCommon(Sound):
    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return super().transition(state, action, noise) + 0.1 * state.max(0).values


class Buffer(Sound):
    """Writes each next state into one tensor, and returns that."""

    buffer: Tensor | None = None

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        after = super().transition(state, action, noise)
        if self.buffer is None or self.buffer.shape != after.shape or after.requires_grad:
            self.buffer = torch.empty_like(after)
        if self.buffer.dtype != after.dtype:
            self.buffer = self.buffer.to(after.dtype)
        self.buffer.detach().copy_(after.detach())
        return self.buffer


class OutOfSpace(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(-0.2, 0.2, (2,), np.float32)


class EndsAtStart(Sound):
    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0] > 0.5


class HalfBounded(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(0.0, np.inf, (1,), np.float32)


class KeepsGraph(Sound):
    """Adds the graph of the last next state to the next one, and 0 to its value."""

    kept: Tensor | None = None

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        after = super().transition(state, action, noise)
        kept, self.kept = self.kept, after
        if kept is None or kept.shape != after.shape or kept.dtype != after.dtype:
            return after
        return after + (kept - kept.detach())


class RestartCutsAll(Sound):
    def reset_where(self, state: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        return super().reset_where(state.detach(), mask, generator)


class RestartMovesAll(Sound):
    def reset_where(self, state: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        return self.initial(mask.shape[0], generator).to(state)


class Raises(Sound):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return undefined_name  # type: ignore[name-defined,no-any-return]  # noqa: F821


BROKEN: dict[type[DifferentiableEnv[Any]], tuple[str, str]] = {
    InPlaceState: ("in place", "transition changes its state in place"),
    AugmentedAction: ("in place", "reward changes its action in place"),
    DetachedReward: ("d reward / d next state", "cut: detached"),
    PartlyDetachedReward: ("d reward / d next state", "cut: detached"),
    DetachedTransition: ("d transition / d state", "cut: detached"),
    ItemInTransition: ("d transition / d action", "cut: detached"),
    NumpyInReward: ("d reward", "numpy"),
    WrongSignTransition: ("d transition / d action", "wrong sign"),
    WrongSignReward: ("d reward / d next state", "wrong sign"),
    HalfObservationGradient: ("d observation / d state", "wrong by a factor of 0.5"),
    TorchRandomness: ("determinism", "transition is random: it draws from torch.rand (global)"),
    NumpyRandomness: ("determinism", "reward is random: it draws from np.random (global)"),
    PythonRandomness: ("determinism", "observation is random: it draws from random.random"),
    GlobalStart: ("seeding", "global randomness: initial draws from, or seeds, torch.rand"),
    Reseeds: ("seeding", "global randomness: initial draws from, or seeds, torch.rand"),
    SeedIgnored: ("seeding", "the seed is ignored"),
    OwnGenerator: ("determinism", "a random generator of its own"),
    Remembers: ("determinism", "reward gives different results for the same inputs: it remembers"),
    CountsSteps: ("termination", "a time limit is reported as termination"),
    ClippedOnBothSides: ("reward slope", "flat: clipped or an event reward"),
    ClippedBelow: ("reward slope", "flat: clipped or an event reward"),
    Rounded: ("reward slope", "flat: clipped or an event reward"),
    RewardInSingle: ("dtype", "reward returned float32 for a state of float64"),
    StateInDouble: ("dtype", "transition (state) returned float64 for a state of float32"),
    RoundedToSingle: ("dtype", "float32 inside: transition"),
    MatrixInDouble: ("dtype", "with a state of float32: "),
    RewardOfTwoDimensions: ("shapes", "reward returned [5, 1] for 5 environments"),
    ShortObservation: ("shapes", "observation returned [5, 1] for 5 environments"),
    Squeezed: ("shapes", "reward returned [] for 1 environments"),
    TerminalNumbers: ("shapes", "terminal returned float32: it must return booleans"),
    TerminalFlag: ("shapes", "terminal returned a bool: it must return a tensor"),
    NoTimeLimit: ("spaces", "max_episode_steps is None: it must be an int of at least 1"),
    NoReward: ("spaces", "reward is None: it must be a function"),
    UndeclaredNoise: ("shapes", "UndeclaredNoise sets no noise_shape"),
    NotAState: ("shapes", "initial returned a ndarray"),
    NeverCountsAnew: ("termination", "a time limit is reported as termination"),
    NanInState: ("finite", "NaN or infinity at a reset: state in"),
    TimeLimitAsTermination: ("termination", "a time limit is reported as termination"),
    TimeLimitBesideFalls: ("termination", "a time limit is reported as termination"),
    TimeInColumn: ("termination", "a time limit is reported as termination"),
    NanAtReset: ("finite", "NaN or infinity at a reset"),
    NanRewardLater: ("finite", "the reward is NaN or infinite"),
    NanGradientAtReset: ("d observation / d state", "NaN or infinite gradient at resets"),
    NanGradientBehindWhere: ("d reward / d state", "NaN or infinite gradient at"),
    RowsMixed: ("rows", "rows mix: reward"),
    WorldInCommon: ("rows", "rows mix: transition"),
    Buffer: ("aliasing", "transition writes into what it returned before"),
    OutOfSpace: ("observation space", "observations are out of their space"),
    EndsAtStart: ("termination", "terminal is true at the start"),
    HalfBounded: ("spaces", "tanh-squashing needs bounds on both sides"),
    KeepsGraph: ("detach", "the graph is not cut by detach()"),
    RestartCutsAll: ("resets", "lose or change their gradient when others are reset"),
    RestartMovesAll: ("restart", "reset_where changes environments that it should leave alone"),
    Raises: ("shapes", "test_differentiable.py, line"),
}


def test_the_advice_on_a_value_of_a_wrong_kind_is_about_kinds() -> None:
    """Not about sums and axes, nor about boxes."""
    terminal = next(f for f in quick_check(TerminalFlag()) if f.status == "fault")
    assert "torch.bool" in terminal.advice and "sum" not in terminal.advice
    limit = next(f for f in quick_check(NoTimeLimit()) if f.status == "fault")
    assert "Box" not in limit.advice and "box" not in limit.meaning


def quick_check(env: DifferentiableEnv[Any]) -> list[Finding]:
    """The findings of a short check, without the checkers of other libraries."""
    return check_differentiable(env, seed=0, samples=24, seconds=0.5, progress=lambda stage: None)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_environment_is_named(kind: Callable[[], DifferentiableEnv[Any]]) -> None:
    """The check that it fails reports a fault, in words that say what is wrong."""
    check, words = BROKEN[kind]  # type: ignore[index]
    found = [f for f in quick_check(kind()) if f.status == "fault"]
    assert any(f.check == check and words in f.finding for f in found), found
    assert all(f.meaning and f.advice for f in found)


@pytest.mark.parametrize("kind", [Sound, FiniteHorizon, SeesTheTime])
def test_a_sound_environment_has_no_fault(kind: Callable[[], DifferentiableEnv[Any]]) -> None:
    """The one that all the broken ones are made of, and two with a clock that is part of it."""
    assert [f for f in quick_check(kind()) if f.status == "fault"] == []


class Wind(Sound):
    """Process noise, and a gradient that depends on the state that it moves."""

    noise_shape = (1,)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        return super().transition(state, action + 0.5 * noise, None)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -(next_state.square().sum(-1) + 0.1).sqrt()


class NanThatStays(Sound):
    """A third number of the state, which is always NaN and which nothing depends on."""

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.tensor([0.1, 0.2, torch.nan]).expand(num_envs, 3).clone()

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        body = super().transition(state[:, :2], action, noise)
        return torch.cat([body, state[:, 2:]], -1)

    def observation(self, state: Tensor) -> Tensor:
        return super().observation(state[:, :2])

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return super().reward(state[:, :2], action, next_state[:, :2])


def test_noise_with_a_gradient_that_depends_on_it_is_no_fault() -> None:
    """A reset draws from the same generator as the noise: that is not the reset's gradient."""
    found = quick_check(Wind())
    assert [f for f in found if f.status == "fault"] == []
    assert "pass" in [f.status for f in found if f.check == "resets"]


def test_nan_equals_nan() -> None:
    """Two starts with the same NaN are one start: the seed is not ignored. The NaN is the fault."""
    found = quick_check(NanThatStays())
    assert {f.check for f in found if f.status == "fault"} == {"finite"}
    (rest,) = [f for f in found if f.status == "not checked"]
    assert rest.part == "gradients" and "finite" in rest.finding


def test_a_nan_gradient_is_not_called_one_that_a_reset_leaks() -> None:
    """Where gradients are NaN, whether a reset cuts them is not known."""

    class NanEverywhere(Sound):
        def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
            push = torch.where(state < 9, 0 * state, (state.detach() - 9 + 0 * state).sqrt())
            return super().transition(state, action, noise) + push.nan_to_num()

    found = quick_check(NanEverywhere())
    assert any(f.status == "fault" and "NaN" in f.finding for f in found)
    assert [f.status for f in found if f.check == "resets"] == ["not checked"]


class Honest(PointMass.__bases__[0]):  # type: ignore[misc,name-defined]
    """A point mass without a gradient by the state, which says so."""

    gradient = GradientInfo(state="none", reward="approximate")
    initial = PointMass.initial
    observation = PointMass.observation
    terminal = PointMass.terminal
    max_episode_steps = 20

    def __init__(self) -> None:
        PointMass.__init__(self)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return PointMass.transition(self, state.detach(), action, noise)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return PointMass.reward(self, state, action.detach(), next_state)


def test_what_is_said_openly_is_no_fault() -> None:
    """GradientInfo says: no gradient by the state, and an approximate one of the reward."""
    found = check_differentiable(
        Honest(), seed=0, samples=8, seconds=0.3, progress=lambda stage: None
    )
    status = {f.check: f.status for f in found}
    assert "fault" not in status.values()
    assert status["d reward / d action"] == "warning"
    assert status["d transition / d state"] == "pass"
