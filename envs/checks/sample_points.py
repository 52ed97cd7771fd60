"""Where derivatives are looked at: in play, at resets, and at the bounds of the actions."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.envs.checks.jacobian import Derivatives, Flat, derivatives
from pgtoolkit.envs.checks.random_play import (
    AnyDifferentiable,
    Play,
    Points,
    bounds,
    copy,
    draw_noise,
    join,
    leaves,
    random_actions,
    take,
)

GROUPS = ("random states", "resets", "action bounds", "actions beyond their bounds")


@final
@dataclasses.dataclass(frozen=True)
class Places:
    """Points, and of which group each is."""

    points: Points
    group: Tensor
    """``[N]`` an index into :data:`GROUPS`."""


def places(env: AnyDifferentiable, played: Play, count: int, seed: int) -> Places:
    """``count`` in play, and half as many of each other group."""
    generator = torch.Generator().manual_seed(seed)
    random = played.sample(count, seed)
    some = random.rows(torch.arange(min(len(random), max(2, count // 2))))
    start_rows = torch.arange(min(len(some), leaves(played.starts)[0].shape[0]))
    resets = Points(
        take(played.starts, start_rows),
        random_actions(env.action_space, len(start_rows), generator),
        draw_noise(env, len(start_rows), generator),
        take(played.starts, start_rows),
    )
    groups = [
        random,
        resets,
        dataclasses.replace(some, action=_at_bounds(env, len(some), generator)),
    ]
    if bool(env.action_space.is_bounded("both")):
        beyond = _beyond_bounds(env, len(some), generator)
        groups.append(dataclasses.replace(some, action=beyond))
    whole = join(groups)
    index = torch.cat([torch.full((len(g),), i) for i, g in enumerate(groups)])
    after = copy(env.transition(copy(whole.state), whole.action.clone(), whole.noise))
    return Places(dataclasses.replace(whole, next_state=after), index)


def _at_bounds(env: AnyDifferentiable, count: int, generator: torch.Generator) -> Tensor:
    """Each row at one end: exactly there, or a thousandth of the range inside."""
    low, high = bounds(env.action_space)
    shape = (count, *env.action_space.shape)
    upper = torch.rand(shape, generator=generator) < 0.5
    inside = 1e-3 * (torch.arange(count) % 2)[:, None]
    return torch.where(upper, high - inside * (high - low), low + inside * (high - low))


def _beyond_bounds(env: AnyDifferentiable, count: int, generator: torch.Generator) -> Tensor:
    low, high = bounds(env.action_space)
    shape = (count, *env.action_space.shape)
    upper = torch.rand(shape, generator=generator) < 0.5
    return torch.where(upper, high + 0.1 * (high - low), low - 0.1 * (high - low))


@final
@dataclasses.dataclass(frozen=True)
class Block:
    """Derivatives of one function by one of its inputs."""

    function: str
    by: str
    outputs: list[str]
    inputs: list[str]
    at: Derivatives

    @property
    def name(self) -> str:
        return f"d {self.function} / d {self.by}"


def transition_blocks(env: AnyDifferentiable, where: Places) -> list[Block]:
    """Of the next state by state and action."""
    points = where.points
    state, after = Flat(points.state, "state"), Flat(points.next_state, "next_state")
    size = len(state.names())

    def function(x: Tensor, rows: Tensor) -> Tensor:
        noise = None if points.noise is None else points.noise[rows]
        found = env.transition(
            state.unpack(x[:, :size], rows), _actions(points, x[:, size:]), noise
        )
        return _joined(found)

    x, scale = _inputs(where, [state.pack(points.state), points.action.flatten(1)])
    at = derivatives(function, x, scale)
    action = action_names(points)
    return [
        Block("transition", "state", after.names(), state.names(), at.columns(slice(0, size))),
        Block("transition", "action", after.names(), action, at.columns(slice(size, None))),
    ]


def observation_blocks(env: AnyDifferentiable, where: Places) -> list[Block]:
    """Of the observation by the state."""
    state = Flat(where.points.state, "state")
    x, scale = _inputs(where, [state.pack(where.points.state)])
    at = derivatives(lambda x, rows: env.observation(state.unpack(x, rows)), x, scale)
    names = [f"observation[{i}]" for i in range(at.autograd.shape[1])]
    return [Block("observation", "state", names, state.names(), at)]


def reward_blocks(env: AnyDifferentiable, where: Places) -> list[Block]:
    """Of the reward by state, action and next state, each for itself."""
    points = where.points
    state, after = Flat(points.state, "state"), Flat(points.next_state, "next_state")
    size, actions = len(state.names()), points.action.flatten(1).shape[1]

    def function(x: Tensor, rows: Tensor) -> Tensor:
        before, action = state.unpack(x[:, :size], rows), x[:, size : size + actions]
        following = after.unpack(x[:, size + actions :], rows)
        return env.reward(before, _actions(points, action), following)[:, None]

    packed = [state.pack(points.state), points.action.flatten(1), after.pack(points.next_state)]
    x, scale = _inputs(where, packed)
    at = derivatives(function, x, scale)
    cuts = (slice(0, size), slice(size, size + actions), slice(size + actions, None))
    columns = (state.names(), action_names(points), after.names())
    return [
        Block("reward", by, ["reward"], names, at.columns(cut))
        for by, names, cut in zip(("state", "action", "next state"), columns, cuts, strict=True)
    ]


def without_carriers(block: Block) -> Block:
    """The block without outputs that only carry a graph.

    An adapter's state may have numbers that are always 0 and whose gradient is that of a snapshot:
    moving inputs moves nothing in them. What they carry shows in the steps that follow.
    """
    at = block.at
    still = (at.differences == 0).all(2, keepdim=True).all(0, keepdim=True)
    autograd = torch.where(still, at.differences, at.autograd)
    return dataclasses.replace(block, at=dataclasses.replace(at, autograd=autograd))


def action_names(points: Points) -> list[str]:
    """``action[0]``, ..."""
    return [f"action[{i}]" for i in range(points.action.flatten(1).shape[1])]


def typical_size(x: Tensor) -> Tensor:
    """``[D]`` root mean squares; 1 for a column that is always 0."""
    size = x.square().mean(0).sqrt()
    return torch.where(size > 1e-8, size, 1.0)


def _inputs(where: Places, packed: list[Tensor]) -> tuple[Tensor, Tensor]:
    x = torch.cat(packed, 1)
    scale = typical_size(x)
    # Start states are often drawn in float32, and numbers of that kind hide a loss of digits. Those
    # of resets and of bounds are left as they are.
    generator = torch.Generator().manual_seed(0)
    moved = x + 1e-10 * scale * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return torch.where((where.group == 0)[:, None], moved, x), scale


def _actions(points: Points, flat: Tensor) -> Tensor:
    return flat.reshape(-1, *points.action.shape[1:])


def _joined(state: object) -> Tensor:
    """The floating-point numbers of a state ``[N, D]``, with their graph and in their dtypes."""
    parts = [leaf.reshape(leaf.shape[0], -1) for leaf in leaves(state) if leaf.is_floating_point()]  # type: ignore[arg-type]
    return torch.cat(parts, 1) if parts else leaves(state)[0].new_zeros(0)  # type: ignore[arg-type]
