"""Check of several steps in a row: what each function gets right may still not fit together."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pgtoolkit.envs.checks_gradients import check_block
from pgtoolkit.envs.checks_jacobian import derivatives
from pgtoolkit.envs.checks_places import Block
from pgtoolkit.envs.checks_play import (
    AnyDifferentiable,
    copy,
    draw_noise,
    fresh,
    random_actions,
    take,
)
from pgtoolkit.envs.finding import Finding, passed

STEPS, ROWS = 3, 6


def check_chain(env: AnyDifferentiable, seed: int) -> Iterator[Finding]:
    """Rewards and last observation of three steps, by their first action.

    Whatever a state is made of, actions can be moved; so this holds for simulators as well, whose
    states are snapshots.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = fresh(env, ROWS, generator)
    # Off the bounds, where a clamp has two derivatives.
    actions = [0.9 * random_actions(env.action_space, ROWS, generator) for _ in range(STEPS)]
    noises = [draw_noise(env, ROWS, generator) for _ in range(STEPS)]

    def steps(first: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        state, paid = copy(take(starts, rows)), []
        ended = torch.zeros(len(rows), dtype=torch.bool)
        for number, (usual, drawn) in enumerate(zip(actions, noises, strict=True)):
            action = first if number == 0 else usual[rows]
            after = env.transition(state, action, None if drawn is None else drawn[rows])
            paid.append(env.reward(state, action, after))
            ended |= env.terminal(after)
            state = after
        return torch.cat([torch.stack(paid, 1).sum(1, True), env.observation(state)], 1), ended

    alive = ~steps(actions[0], torch.arange(ROWS))[1]
    if not bool(alive.any()) or env.max_episode_steps < STEPS:
        yield passed("gradients", "three steps", "not checked: episodes end within three steps")
        return
    kept = torch.nonzero(alive)[:, 0]
    x = actions[0][kept]
    at = derivatives(lambda v, rows: steps(v, kept[rows])[0], x, torch.ones(x.shape[1]).double())
    seen = [f"observation[{i}]" for i in range(at.autograd.shape[1] - 1)]
    inputs = [f"first action[{i}]" for i in range(x.shape[1])]
    block = Block("three steps", "first action", ["sum of rewards", *seen], inputs, at)
    yield from check_block(block, torch.zeros(len(kept), dtype=torch.int64), env.gradient)
