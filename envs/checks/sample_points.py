"""Points at which derivatives are checked: from play, at resets, and at the action bounds."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.envs.checks.random_play import (
    Points,
    RandomPlay,
    draw_noise,
    finite_bounds,
    join_points,
    random_actions,
)
from pgtoolkit.envs.checks.states import copy_state, take_rows
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import leaves_of

GROUPS = ("random states", "resets", "action bounds", "actions beyond their bounds")


@final
@dataclasses.dataclass(frozen=True)
class SamplePoints:
    """``N`` points, each of one group."""

    points: Points
    group: Tensor
    """``[N]`` index into :data:`GROUPS`."""

    @property
    def from_play(self) -> Tensor:
        """``[N]`` bool: the points of random play."""
        return self.group == 0


def sample_points(
    env: DifferentiableEnv, played: RandomPlay, count: int, seed: int
) -> SamplePoints:
    """``count`` points of random play, and about half as many of each other group.

    There are no actions beyond their bounds where the action space has none.
    """
    generator = torch.Generator().manual_seed(seed)
    random = played.sample(count, seed)
    half = random.rows(torch.arange(min(len(random), max(2, count // 2))))
    groups = [
        random,
        _reset_points(env, played, len(half), generator),
        dataclasses.replace(half, action=_at_bounds(env, len(half), generator)),
    ]
    if bool(env.action_space.is_bounded("both")):
        beyond = _beyond_bounds(env, len(half), generator)
        groups.append(dataclasses.replace(half, action=beyond))
    whole = join_points(groups)
    group = torch.cat([torch.full((len(g),), i) for i, g in enumerate(groups)])
    after = copy_state(env.transition(copy_state(whole.state), whole.action.clone(), whole.noise))
    return SamplePoints(dataclasses.replace(whole, next_state=after), group)


def _reset_points(
    env: DifferentiableEnv, played: RandomPlay, at_most: int, generator: torch.Generator
) -> Points:
    """Start states with random actions; ``next_state`` is a placeholder of the right shape."""
    count = min(at_most, leaves_of(played.starts)[0].shape[0])
    starts = take_rows(played.starts, torch.arange(count))
    actions = random_actions(env.action_space, count, generator)
    return Points(starts, actions, draw_noise(env, count, generator), starts)


def _at_bounds(env: DifferentiableEnv, count: int, generator: torch.Generator) -> Tensor:
    """``[count, A]`` each entry at a random bound; odd rows a thousandth of the range inside."""
    inside = 1e-3 * (torch.arange(count) % 2)[:, None]
    return _moved_from_bounds(env, count, inside, generator)


def _beyond_bounds(env: DifferentiableEnv, count: int, generator: torch.Generator) -> Tensor:
    """``[count, A]`` each entry a tenth of the range beyond a random bound."""
    return _moved_from_bounds(env, count, -0.1, generator)


def _moved_from_bounds(
    env: DifferentiableEnv, count: int, inside: Tensor | float, generator: torch.Generator
) -> Tensor:
    """``[count, A]`` a random bound moved inwards by ``inside`` times the range."""
    low, high = finite_bounds(env.action_space)
    upper = torch.rand((count, *env.action_space.shape), generator=generator) < 0.5
    return torch.where(upper, high - inside * (high - low), low + inside * (high - low))
