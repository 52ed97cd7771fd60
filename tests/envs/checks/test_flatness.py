"""Jumps of known functions, and the reward's slope in known environments."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.analytic.chaos import Chaos
from pgtoolkit.envs.analytic.step import Step
from pgtoolkit.envs.analytic.wall import Wall
from pgtoolkit.envs.checks.finding import Finding
from pgtoolkit.envs.checks.flatness import check_reward_gradient, largest_jump
from pgtoolkit.envs.checks.jacobian import reward_blocks, transition_blocks
from pgtoolkit.envs.checks.random_play import random_play
from pgtoolkit.envs.checks.sample_points import sample_points
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.differentiable import DifferentiableEnv


def normal(count: int, size: int) -> Tensor:
    """``[count, size]`` standard normal numbers in float64."""
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("jump", [-12.0, 0.5])
def test_a_jump_is_found_and_measured(jump: float) -> None:
    """A parabola with a jump at 0.3; without it there is none."""
    low, high = -normal(20, 1).abs() - 0.5, normal(20, 1).abs() + 0.5
    found = largest_jump(lambda v: v.square() + jump * (v > 0.3), low, high)
    assert found is not None
    assert found[0] == pytest.approx(abs(jump), rel=1e-6)
    assert largest_jump(lambda v: v.square() + v.abs(), low, high) is None


def test_the_turn_of_an_angle_is_no_jump() -> None:
    """An angle that wraps at pi comes back as the same angle."""
    low, high = -normal(20, 1).abs(), normal(20, 1).abs() + 4
    wrapped = largest_jump(lambda v: torch.remainder(v + math.pi, 2 * math.pi) - math.pi, low, high)
    assert wrapped is None


def reward_slope(env: DifferentiableEnv[Any]) -> Finding:
    played = random_play(env, num_envs=16, num_steps=20, seed=0, seconds=9.0)
    where = sample_points(env, played, 24, 0)
    blocks = {b.name: b for b in [*transition_blocks(env, where), *reward_blocks(env, where)]}
    points = where.points
    reward = env.reward(points.state, points.action, points.next_state)
    (finding,) = check_reward_gradient(
        blocks,
        where.from_play,
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
    assert "only the last step of an episode" in reward_slope(Chaos()).finding
