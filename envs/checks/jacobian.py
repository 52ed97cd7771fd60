"""Jacobians of an environment's functions, by autograd and by differences at two step sizes."""

import dataclasses
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from pgtoolkit.envs.checks.random_play import Points
from pgtoolkit.envs.checks.sample_points import SamplePoints
from pgtoolkit.envs.checks.states import FlatState, entry_names
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, leaves_of

RowFunction = Callable[[Tensor, Tensor], Tensor]
"""``[K, D]`` rows, and ``[K]`` the number of the point each row belongs to, to ``[K, M]``."""


@final
@dataclasses.dataclass(frozen=True)
class Derivatives:
    """Derivatives of ``M`` outputs by ``D`` inputs at ``N`` points: ``[N, M, D]`` each."""

    autograd: Tensor
    differences: Tensor
    """Central differences at the smaller step."""
    unsettled: Tensor
    """Absolute difference of the central differences at the two step sizes."""
    backward: Tensor
    """One-sided difference at the smaller step."""
    forward: Tensor
    """One-sided difference at the smaller step; it differs from ``backward`` at a kink."""
    noise: Tensor
    """Bound on the rounding error of a difference."""
    single: Tensor
    """``[M]`` bool: the output is computed in float32, so differences are inaccurate."""

    def columns(self, chosen: slice) -> "Derivatives":
        """The derivatives by some of the inputs."""
        by_input = ("autograd", "differences", "unsettled", "backward", "forward", "noise")
        return dataclasses.replace(
            self, **{name: getattr(self, name)[:, :, chosen] for name in by_input}
        )


@final
@dataclasses.dataclass(frozen=True)
class Block:
    """The Jacobian of one function by one of its inputs."""

    function: str
    by: str
    outputs: list[str]
    """``[M]`` names in messages."""
    inputs: list[str]
    """``[D]`` names in messages."""
    at: Derivatives

    @property
    def name(self) -> str:
        return f"d {self.function} / d {self.by}"


def transition_blocks(env: DifferentiableEnv, where: SamplePoints) -> list[Block]:
    """The next state's derivatives by state and action."""
    points = where.points
    state, after = FlatState(points.state, "state"), FlatState(points.next_state, "next_state")
    size = len(state.names())

    def function(x: Tensor, rows: Tensor) -> Tensor:
        noise = None if points.noise is None else points.noise[rows]
        before = state.unpack(x[:, :size], rows)
        return _flatten(env.transition(before, _unflatten_action(points, x[:, size:]), noise))

    x, scale = _inputs(where, [state.pack(points.state), points.action.flatten(1)])
    at = derivatives(function, x, scale)
    action = _action_names(points)
    return [
        Block("transition", "state", after.names(), state.names(), at.columns(slice(0, size))),
        Block("transition", "action", after.names(), action, at.columns(slice(size, None))),
    ]


def observation_blocks(env: DifferentiableEnv, where: SamplePoints) -> list[Block]:
    """The observation's derivatives by the state."""
    state = FlatState(where.points.state, "state")
    x, scale = _inputs(where, [state.pack(where.points.state)])
    at = derivatives(lambda x, rows: env.observation(state.unpack(x, rows)), x, scale)
    outputs = entry_names("observation", (at.autograd.shape[1],))
    return [Block("observation", "state", outputs, state.names(), at)]


def reward_blocks(env: DifferentiableEnv, where: SamplePoints) -> list[Block]:
    """The reward's partial derivatives by state, action and next state."""
    points = where.points
    state, after = FlatState(points.state, "state"), FlatState(points.next_state, "next_state")
    size, actions = len(state.names()), points.action.flatten(1).shape[1]

    def function(x: Tensor, rows: Tensor) -> Tensor:
        before, action = state.unpack(x[:, :size], rows), x[:, size : size + actions]
        following = after.unpack(x[:, size + actions :], rows)
        return env.reward(before, _unflatten_action(points, action), following)[:, None]

    packed = [state.pack(points.state), points.action.flatten(1), after.pack(points.next_state)]
    x, scale = _inputs(where, packed)
    at = derivatives(function, x, scale)
    columns = (slice(0, size), slice(size, size + actions), slice(size + actions, None))
    inputs = (state.names(), _action_names(points), after.names())
    return [
        Block("reward", by, ["reward"], names, at.columns(chosen))
        for by, names, chosen in zip(
            ("state", "action", "next state"), inputs, columns, strict=True
        )
    ]


def without_carriers(block: Block) -> Block:
    """The block with autograd's value replaced by 0 for outputs that no input moves.

    An adapter's state may hold entries that are always 0 and only carry the gradient of a snapshot.
    Moving an input changes nothing in them; :func:`check_chain
    <pgtoolkit.envs.checks.gradients.check_chain>` checks the gradient that they carry.
    """
    at = block.at
    still = (at.differences == 0).all(2, keepdim=True).all(0, keepdim=True)
    autograd = torch.where(still, at.differences, at.autograd)
    return dataclasses.replace(block, at=dataclasses.replace(at, autograd=autograd))


def derivatives(function: RowFunction, x: Tensor, scale: Tensor) -> Derivatives:
    """Jacobians of ``function`` at every point, by autograd and by differences.

    Args:
        function: acts on each row alone. Called once on ``N`` rows with a graph, and twice on the
            ``(2 D + 1) N`` moved rows without.
        x: ``[N, D]`` the points.
        scale: ``[D]`` typical sizes of the inputs; the steps are 1e-5 and 2.5e-6 of them, or 5e-3
            and 1.25e-3 if an output is computed in float32.
    """
    rows = torch.arange(x.shape[0])
    values, by_autograd = _autograd_jacobian(lambda v: function(v, rows), x)
    single = _computed_in_single(values)
    step = torch.where(single.any(), 5e-3, 1e-5) * scale
    with torch.no_grad():
        wide = _one_sided_differences(function, x, step, rows)
        narrow = _one_sided_differences(function, x, step / 4, rows)
    central = [(forward + backward) / 2 for forward, backward in (wide, narrow)]
    epsilon = torch.where(single, 6e-8, 1.2e-16)
    # The error of one evaluation is some units in the last place of the terms that it sums.
    size = values.double().abs().max(0).values + 1e-3
    noise = 100 * (epsilon * size)[None, :, None] / (step / 4)
    return Derivatives(
        by_autograd,
        central[1],
        (central[0] - central[1]).abs(),
        narrow[1],
        narrow[0],
        noise.expand_as(by_autograd),
        single,
    )


def _autograd_jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``[N, M]`` and Jacobian ``[N, M, D]``, one backward pass an output.

    Outputs without a graph have the derivative 0.
    """
    leaf = x.detach().clone().requires_grad_()
    # In training a state is no leaf of the graph; in-place writes fail on leaves only.
    y = function(leaf * 1.0)
    columns = []
    for m in range(y.shape[1]):
        if not y.requires_grad:
            columns.append(torch.zeros_like(x))
            continue
        (gradient,) = torch.autograd.grad(y[:, m].sum(), leaf, retain_graph=True, allow_unused=True)
        columns.append(torch.zeros_like(x) if gradient is None else gradient)
    return y.detach(), torch.stack(columns, 1).detach()


def _computed_in_single(values: Tensor) -> Tensor:
    """``[M]`` bool: all values of a column are float32 numbers, which is no accident.

    Multiples of 1/64, and columns of fewer than four different values, are not counted.
    """
    values = values.double()
    rounded = values.float().double()
    simple = (values * 64 == (values * 64).round()).all(0)
    few = torch.tensor([len(column.unique()) < 4 for column in values.T], dtype=torch.bool)
    return ((rounded == values) | ~values.isfinite()).all(0) & ~simple & ~few


def _one_sided_differences(
    function: RowFunction, x: Tensor, step: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward and backward differences ``[N, M, D]``, all moved rows in one batch."""
    n, d = x.shape
    moves = torch.cat([torch.zeros(1, d).to(x), torch.diag(step), -torch.diag(step)])
    moved = (x + moves[:, None, :]).reshape(-1, d)
    y = function(moved, rows.repeat(2 * d + 1)).double().reshape(2 * d + 1, n, -1)
    # The steps that were really made, after rounding.
    up = (x + step - x).T[:, :, None]
    down = (x - (x - step)).T[:, :, None]
    forward, backward = (y[1 : d + 1] - y[0]) / up, (y[0] - y[d + 1 :]) / down
    return forward.permute(1, 2, 0), backward.permute(1, 2, 0)


def _inputs(where: SamplePoints, packed: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The points ``[N, D]`` at which to differentiate, and the typical size ``[D]`` of each column.

    Points of random play are moved by a relative 1e-10: start states are often drawn in float32,
    and such numbers would hide that a function rounds to float32. Resets and bounds stay exact.
    """
    x = torch.cat(packed, 1)
    scale = _typical_size(x)
    generator = torch.Generator().manual_seed(0)
    moved = x + 1e-10 * scale * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return torch.where(where.from_play[:, None], moved, x), scale


def _typical_size(x: Tensor) -> Tensor:
    """``[D]`` root mean square of each column; 1 where it is below 1e-8."""
    size = x.square().mean(0).sqrt()
    return torch.where(size > 1e-8, size, 1.0)


def _action_names(points: Points) -> list[str]:
    return entry_names("action", (points.action.flatten(1).shape[1],))


def _unflatten_action(points: Points, flat: Tensor) -> Tensor:
    return flat.reshape(-1, *points.action.shape[1:])


def _flatten(state: State) -> Tensor:
    """The floating-point entries ``[N, D]`` in their own dtypes, with their graph."""
    leaves = leaves_of(state)
    parts = [leaf.reshape(leaf.shape[0], -1) for leaf in leaves if leaf.is_floating_point()]
    return torch.cat(parts, 1) if parts else leaves[0].new_zeros(0)
