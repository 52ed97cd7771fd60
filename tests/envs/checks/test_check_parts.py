"""The parts of ``check_env`` against closed forms: derivatives, jumps, clocks, growth, claims."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.analytic.chaos import Chaos
from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.analytic.step import Step
from pgtoolkit.envs.analytic.wall import Wall
from pgtoolkit.envs.checks.differentiable import check_differentiable
from pgtoolkit.envs.checks.episodes import check_ends, find_clock
from pgtoolkit.envs.checks.finding import Finding
from pgtoolkit.envs.checks.flatness import check_reward_gradient, largest_jump
from pgtoolkit.envs.checks.gradients import check_block, compare
from pgtoolkit.envs.checks.horizon import adjoint_norms
from pgtoolkit.envs.checks.interface import InSingle, refuses_double
from pgtoolkit.envs.checks.jacobian import Derivatives, derivatives
from pgtoolkit.envs.checks.random_play import play
from pgtoolkit.envs.checks.sample_points import Block, places, reward_blocks, transition_blocks
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.errors import RequestError


def at(function: Any, x: Tensor) -> Derivatives:
    """Derivatives of a function of one argument."""
    return derivatives(lambda v, rows: function(v), x, torch.ones(x.shape[1]).double())


def some(count: int, size: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0)).double()


def test_derivatives_of_a_known_function() -> None:
    """``(a b, sin a)`` has the Jacobian ``((b, a), (cos a, 0))``."""
    x = some(20, 2)
    found = at(lambda v: torch.stack([v[:, 0] * v[:, 1], v[:, 0].sin()], 1), x)
    a, b = x.unbind(1)
    zero = torch.zeros_like(a)
    exact = torch.stack([torch.stack([b, a], 1), torch.stack([a.cos(), zero], 1)], 1)
    torch.testing.assert_close(found.autograd, exact, rtol=1e-12, atol=1e-12)
    # The rounding of a value of size 1, over the step: 1e-16 / 2.5e-6, some times over.
    torch.testing.assert_close(found.differences, exact, rtol=1e-9, atol=1e-9)
    verdicts = compare(found)
    assert not bool((verdicts.wrong | verdicts.kink | verdicts.not_finite).any())


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_at_a_kink_every_slope_between_is_right(slope: float) -> None:
    """``max(x, 0)`` at 0: any derivative from 0 to 1 is as good as another, and 2 is wrong."""
    x = torch.zeros(1, 1).double()
    found = at(lambda v: v.clamp(min=0) * 1.0, x)
    kink = Derivatives(**{**found.__dict__, "autograd": torch.full((1, 1, 1), slope).double()})
    assert not bool(compare(kink).wrong.any())


@pytest.mark.parametrize(
    ("factor", "words"), [(0.0, "cut: "), (-1.0, "wrong sign"), (0.5, "factor of 0.5")]
)
def test_a_wrong_derivative_is_called_by_its_name(factor: float, words: str) -> None:
    """Zero, the negative, and a multiple."""
    found = at(lambda v: v.square() * 0.5, some(9, 1) + 3)
    wrong = Derivatives(**{**found.__dict__, "autograd": factor * found.autograd})
    block = Block("reward", "state", ["reward"], ["state"], wrong)
    group = torch.zeros(9, dtype=torch.int64)
    (finding,) = check_block(block, group, GradientInfo())
    assert finding.status == "fault" and words in finding.finding
    (finding,) = check_block(block, group, GradientInfo(reward="approximate"))
    assert finding.status == "warning"
    (finding,) = check_block(block, group, GradientInfo(reward="none"))
    assert finding.status == "pass"


def test_single_precision_is_seen_and_allowed_for() -> None:
    """A function that rounds to float32 agrees with its derivative all the same."""
    found = at(lambda v: v.float().sin().double(), some(30, 1))
    assert bool(found.single.all())
    assert not bool(compare(found).wrong.any())


@pytest.mark.parametrize("jump", [-12.0, 0.5])
def test_a_jump_is_found_and_measured(jump: float) -> None:
    """A parabola with a jump at 0.3; without it there is none."""
    low, high = -some(20, 1).abs() - 0.5, some(20, 1).abs() + 0.5
    found = largest_jump(lambda v: v.square() + jump * (v > 0.3), low, high)
    assert found is not None
    assert found[0] == pytest.approx(abs(jump), rel=1e-6)
    assert largest_jump(lambda v: v.square() + v.abs(), low, high) is None


def test_the_turn_of_an_angle_is_no_jump() -> None:
    """An angle that wraps at pi comes back as the same angle."""
    low, high = -some(20, 1).abs(), some(20, 1).abs() + 4
    wrapped = largest_jump(lambda v: torch.remainder(v + math.pi, 2 * math.pi) - math.pi, low, high)
    assert wrapped is None


def test_the_adjoint_grows_as_chaos_does() -> None:
    """``s' = rho s + u``: the adjoint over ``k`` steps is exactly ``rho^k``."""
    norms = adjoint_norms(Chaos(rho=1.3, horizon=12), 0, steps=12, rows=5)
    assert norms is not None
    ages = torch.arange(len(norms) - 1, -1, -1).double()
    expected = (1.3**ages)[:, None].expand_as(norms)
    torch.testing.assert_close(norms, expected, rtol=1e-5, atol=0.0)


def test_a_clock_is_told_from_what_moves() -> None:
    """LQG counts its steps in the second leaf; a pendulum has no clock."""
    lqg, pendulum = LQG(), Pendulum()
    played = play(lqg, num_envs=8, num_steps=6, seed=0, seconds=9.0)
    assert find_clock(lqg, played) == (1, 0)
    played = play(pendulum, num_envs=8, num_steps=6, seed=0, seconds=9.0)
    assert find_clock(pendulum, played) is None


def test_the_end_of_a_finite_horizon_is_no_time_limit() -> None:
    """LQG pays by the clock; without its last cost it still names its length."""
    for env in (LQG(horizon=7), LQG(horizon=7, Qf=0.0)):
        played = play(env, num_envs=8, num_steps=8, seed=0, seconds=9.0)
        (finding,) = check_ends(env, played)
        assert finding.status == "pass" and "after 7 steps" in finding.finding


def reward_slope(env: DifferentiableEnv[Any]) -> Finding:
    played = play(env, num_envs=16, num_steps=20, seed=0, seconds=9.0)
    where = places(env, played, 24, 0)
    blocks = {b.name: b for b in [*transition_blocks(env, where), *reward_blocks(env, where)]}
    points = where.points
    reward = env.reward(points.state, points.action, points.next_state)
    (finding,) = check_reward_gradient(
        blocks,
        where.group == 0,
        reward,
        played.reward.ravel(),
        env.terminal(points.next_state),
        env.gradient,
    )
    return finding


def test_the_reward_slope_of_known_environments() -> None:
    """A smooth one, a step, a reward at the end alone."""
    assert "100% of states" in reward_slope(PointMass()).finding
    step = reward_slope(Step())
    assert step.status == "warning" and "flat: clipped or an event reward" in step.finding
    assert reward_slope(Wall()).status == "pass"
    assert "last step of an episode alone" in reward_slope(Chaos()).finding


class OnlySingle(DifferentiableEnv[Tensor]):
    """A point mass that refuses float64, as a simulator may."""

    gradient = GradientInfo(method="another library")

    def __init__(self) -> None:
        self.inner = PointMass()
        self.observation_space = self.inner.observation_space
        self.action_space = self.inner.action_space
        self.max_episode_steps = 20

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return self.inner.initial(num_envs, generator)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        if state.dtype != torch.float32:
            raise RequestError("this environment computes in float32: leave float64 out")
        return self.inner.transition(state, action, noise)

    def observation(self, state: Tensor) -> Tensor:
        return self.inner.observation(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return self.inner.reward(state, action, next_state)

    def terminal(self, state: Tensor) -> Tensor:
        return self.inner.terminal(state)


def test_an_environment_in_float32_alone_is_looked_at() -> None:
    """With fewer digits, and without a fault."""
    assert refuses_double(OnlySingle(), 0) and not refuses_double(PointMass(), 0)
    found = check_differentiable(
        OnlySingle(), seed=0, samples=8, seconds=0.3, progress=lambda what: None
    )
    assert [f for f in found if f.status == "fault"] == []
    agreement = next(f for f in found if f.check == "d transition / d state")
    assert agreement.status == "pass" and "agrees" in agreement.finding
    shim = InSingle(OnlySingle())
    start = shim.initial(3, torch.Generator().manual_seed(0))
    after = shim.transition(start, torch.zeros(3, 2).double(), None)
    assert isinstance(after, Tensor) and after.dtype == torch.float64


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
    """No gradient by the state, and an approximate one of the reward."""
    found = check_differentiable(
        Honest(), seed=0, samples=8, seconds=0.3, progress=lambda what: None
    )
    status = {f.check: f.status for f in found}
    assert "fault" not in status.values()
    assert status["d reward / d action"] == "warning"
    assert status["d transition / d state"] == "pass"
