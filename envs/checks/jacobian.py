"""Derivatives of a function of rows, by autograd and by differences at two step sizes."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.envs.checks.random_play import leaf_names, leaves
from pgtoolkit.envs.states import State, rebuild_state

Rows = Callable[[Tensor], Tensor]
"""``[N, D]`` to ``[N, M]``, row by row."""


@final
@dataclasses.dataclass(frozen=True)
class Flat:
    """The floating-point numbers of a state as a row, and back."""

    template: State
    name: str

    def pack(self, state: State) -> Tensor:
        """``[N, D]``."""
        rows = leaves(state)[0].shape[0]
        moving = [leaf for leaf in leaves(state) if leaf.is_floating_point()]
        parts = [leaf.reshape(rows, -1).double() for leaf in moving]
        return torch.cat(parts, 1) if parts else torch.zeros(rows, 0).double()

    def unpack(self, flat: Tensor, rows: Tensor) -> State:
        """The state whose numbers are ``flat``; whole numbers are those of the template's rows."""
        found, at = [], 0
        for leaf in leaves(self.template):
            if not leaf.is_floating_point():
                found.append(leaf[rows])
                continue
            size = math.prod(leaf.shape[1:])
            part = flat[:, at : at + size]
            found.append(part.reshape(part.shape[0], *leaf.shape[1:]))
            at += size
        whole: Any = found[0] if isinstance(self.template, Tensor) else tuple(found)
        return rebuild_state(self.template, whole)

    def names(self) -> list[str]:
        """Of each column, as a message calls it."""
        found: list[str] = []
        for name, leaf in zip(
            leaf_names(self.template, self.name), leaves(self.template), strict=True
        ):
            if leaf.is_floating_point():
                found += [name] if leaf.dim() == 1 else entries(name, tuple(leaf.shape[1:]))
        return found


def entries(name: str, shape: tuple[int, ...]) -> list[str]:
    """``a[0]``, ``a[1]``, ..., or ``a[0,0]``, ..."""
    indices = torch.cartesian_prod(*[torch.arange(n) for n in shape]).reshape(-1, len(shape))
    return [f"{name}[{','.join(map(str, index))}]" for index in indices.tolist()]


@final
@dataclasses.dataclass(frozen=True)
class Derivatives:
    """``[N, M, D]`` each: of ``M`` outputs by ``D`` inputs at ``N`` places."""

    autograd: Tensor
    differences: Tensor
    """Central, at the smaller step."""
    unsettled: Tensor
    """How far the differences at both steps are apart."""
    backward: Tensor
    forward: Tensor
    """One-sided: at a kink these two differ."""
    noise: Tensor
    """``[N, M, 1]`` what rounding can do to a difference."""
    single: Tensor
    """``[M]`` bool: computed in float32, so that differences resolve little."""

    def columns(self, chosen: slice) -> "Derivatives":
        """By some of the inputs."""
        return dataclasses.replace(
            self,
            **{
                name: getattr(self, name)[:, :, chosen]
                for name in ("autograd", "differences", "unsettled", "backward", "forward")
            },
            noise=self.noise[:, :, chosen],
        )


def derivatives(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, scale: Tensor
) -> Derivatives:
    """Both kinds at every place.

    Args:
        function: of ``[K, D]`` and of the numbers ``[K]`` of the places these rows belong to; gives
            ``[K, M]``. Evaluated once on ``N`` rows with a graph, and without on the moved rows.
        x: ``[N, D]``.
        scale: ``[D]`` typical sizes of the inputs: the steps are small against them.
    """
    rows = torch.arange(x.shape[0])
    found, by_autograd = autograd_jacobian(lambda v: function(v, rows), x)
    single = computed_in_single(found)
    step = torch.where(single.any(), 5e-3, 1e-5) * scale
    with torch.no_grad():
        wide = _differences(function, x, step, rows)
        narrow = _differences(function, x, step / 4, rows)
    central = [(forward + backward) / 2 for forward, backward in (wide, narrow)]
    epsilon = torch.where(single, 6e-8, 1.2e-16)
    # The error of one evaluation is some units in the last place of what it sums up.
    size = found.double().abs().max(0).values + 1e-3
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


def autograd_jacobian(function: Rows, x: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``[N, M]``, and ``[N, M, D]`` by one backward pass an output; 0 without a graph."""
    leaf = x.detach().clone().requires_grad_()
    y = function(leaf * 1.0)  # not a leaf, as in training: else in-place writes fail only here
    columns = []
    for m in range(y.shape[1]):
        if not y.requires_grad:
            columns.append(torch.zeros_like(x))
            continue
        (gradient,) = torch.autograd.grad(y[:, m].sum(), leaf, retain_graph=True, allow_unused=True)
        columns.append(torch.zeros_like(x) if gradient is None else gradient)
    return y.detach(), torch.stack(columns, 1).detach()


def computed_in_single(values: Tensor) -> Tensor:
    """``[M]`` whether every value of a column is one of float32, and they are no simple numbers."""
    values = values.double()
    rounded = values.float().double()
    simple = (values * 64 == (values * 64).round()).all(0)
    few = torch.tensor([len(column.unique()) < 4 for column in values.T], dtype=torch.bool)
    return ((rounded == values) | ~values.isfinite()).all(0) & ~simple & ~few


def _differences(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, step: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward and backward ``[N, M, D]``; all moved rows are one batch."""
    n, d = x.shape
    moves = torch.cat([torch.zeros(1, d).to(x), torch.diag(step), -torch.diag(step)])
    moved = (x + moves[:, None, :]).reshape(-1, d)
    y = function(moved, rows.repeat(2 * d + 1)).double().reshape(2 * d + 1, n, -1)
    # The step that was really made, after rounding.
    up = (x + step - x).T[:, :, None]
    down = (x - (x - step)).T[:, :, None]
    forward, backward = (y[1 : d + 1] - y[0]) / up, (y[0] - y[d + 1 :]) / down
    return forward.permute(1, 2, 0), backward.permute(1, 2, 0)
