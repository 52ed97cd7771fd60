"""Moments of per-trajectory gradients: what all statistics come from.

Notation: ``g_i`` is the gradient of trajectory ``i`` of ``N``, all parameters together; ``m`` is
the mean gradient, ``c_i = g_i - m`` a centred gradient, ``V`` the trace of the covariance of one
trajectory's gradient and ``Q`` the trace of the squared covariance.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.outer_products import FLOAT32_ROUNDING, OuterProducts, SampleGradient

GRAM_BLOCK, MAX_SINGLE_GRAM = 16, 64
"""Trajectories in each Gram matrix, where there are more trajectories than the second number.

The Gram matrix of all trajectories would cost more than everything else, and would hardly estimate
``Q`` better if gradients are about normal: for ten dimensions and 256 trajectories to 5.7 % instead
of 6.5 %. With heavy tails ``Q`` is too large by the factor that holds for 16 trajectories: 1.25 for
Student's t with 5 degrees of freedom, about ten for the score function of ``x^2``. Every z is then
too small, not too large.
"""

CACHED_ENTRIES, MIN_COLUMNS = 262_144, 32
"""Gradient entries that are processed at once, so that they stay in the processor's cache; but at
least so many columns (parameters)."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryMoments:
    """Sums over parameters of per-trajectory gradients, in float64.

    Of arrays they are computed for some columns at a time, so no second array of size ``N P`` is
    made; of outer products from the two factors.
    """

    mean: Tensor
    """``m`` ``[P]``."""
    projections: Tensor
    """``c_i . m`` ``[N]``."""
    parameter_squares: dict[str, Tensor]
    """``|c_i|^2`` ``[N]`` of each parameter tensor."""
    squared_covariance: Tensor
    """``Q``, a scalar."""

    @property
    def squares(self) -> Tensor:
        """``|c_i|^2`` ``[N]``."""
        return torch.stack([*self.parameter_squares.values()]).sum(0)

    @property
    def squared_mean(self) -> Tensor:
        """``|m|^2``, a scalar."""
        return self.mean.square().sum()

    @classmethod
    def of(cls, gradients: Mapping[str, SampleGradient]) -> Self:
        """Computes the moments of per-trajectory gradients ``{parameter name: [N, *shape]}``."""
        arrays = {name: g for name, g in gradients.items() if isinstance(g, Tensor)}
        parts = [
            _of_products(name, g) for name, g in gradients.items() if isinstance(g, OuterProducts)
        ]
        if arrays:
            parts.append(_of_arrays(arrays))
        means = {name: mean for part in parts for name, mean in part.means.items()}
        squares = {name: own for part in parts for name, own in part.squares.items()}
        return cls(
            mean=torch.cat([means[name] for name in gradients]),
            projections=torch.stack([part.projections for part in parts]).sum(0),
            parameter_squares={name: squares[name] for name in gradients},
            squared_covariance=squared_covariance_of_gram(
                torch.stack([part.gram for part in parts]).sum(0)
            ).mean(),
        )


@final
class _Part(NamedTuple):
    """The sums over some of the parameters."""

    means: dict[str, Tensor]
    """``m`` of each parameter, as one vector."""
    projections: Tensor
    squares: dict[str, Tensor]
    gram: Tensor
    """``g_i . g_j`` of the blocks ``[blocks, n, n]``, centred or not."""


def _blocks(size: int) -> tuple[int, int]:
    """Number of blocks of trajectories, and their length."""
    blocks = 1 if size <= MAX_SINGLE_GRAM else size // GRAM_BLOCK
    return blocks, size // blocks


def _of_products(name: str, gradient: OuterProducts) -> _Part:
    """The sums over a weight, in float64, in which they are not centred first.

    ``|c_i|^2 = |g_i|^2 - 2 g_i . m + |m|^2``. It is 0 where it is within the rounding of the
    factors.
    """
    gradient = gradient.double()
    mean, squares = gradient.mean(), gradient.squares()
    along, squared_mean = gradient.along(mean), mean.square().sum()
    centred = squares - 2 * along + squared_mean
    centred = torch.where(centred > FLOAT32_ROUNDING * squares, centred, 0.0)
    gram = gradient.gram(*_blocks(len(squares)))
    return _Part({name: mean.flatten()}, along - squared_mean, {name: centred}, gram)


def _of_arrays(gradients: Mapping[str, Tensor]) -> _Part:
    """The sums over parameters whose gradients are arrays, for some columns at a time."""
    first = next(iter(gradients.values()))
    size, zeros = len(first), functools.partial(first.new_zeros, dtype=torch.float64)
    projections = zeros(size)
    means: dict[str, list[Tensor]] = {name: [] for name in gradients}
    squares = {name: zeros(size) for name in gradients}
    blocks, block_size = _blocks(size)
    num_blocked = blocks * block_size
    gram = zeros(blocks, block_size, block_size)
    for parts in _column_chunks(gradients, max(CACHED_ENTRIES // size, MIN_COLUMNS)):
        columns = parts[0][1] if len(parts) == 1 else torch.cat([x for _, x in parts], 1)
        scale = power_of_two(columns)
        square = scale * scale
        rows = columns / scale
        mean = subtract_mean_(rows)
        projections += (rows @ mean.to(rows)).double() * square
        blocked = rows[:num_blocked].view(blocks, block_size, -1)
        gram += (blocked @ blocked.mT).double() * square
        widths = [part.shape[1] for _, part in parts]
        own_means = torch.split(mean * scale, widths)
        own_rows = torch.split(rows.square_(), widths, 1)
        for (name, _), own_mean, own in zip(parts, own_means, own_rows, strict=True):
            means[name].append(own_mean)
            squares[name] += own.sum(1).double() * square
    return _Part({n: torch.cat(m) for n, m in means.items()}, projections, squares, gram)


def _column_chunks(
    gradients: Mapping[str, Tensor], num_columns: int
) -> Iterator[list[tuple[str, Tensor]]]:
    """All columns in chunks of at most ``num_columns``.

    Yields:
        Pairs of a parameter's name and some of its columns ``[N, K]``.
    """
    parts: list[tuple[str, Tensor]] = []
    room = num_columns
    for name, gradient in gradients.items():
        flat = gradient.detach().reshape(len(gradient), -1)
        for part in torch.split(flat, num_columns, dim=1):
            if part.shape[1] > room:
                yield parts
                parts, room = [], num_columns
            parts.append((name, part))
            room -= part.shape[1]
    yield parts


def power_of_two(columns: Tensor) -> Tensor:
    """The power of two, in float64, that scales the largest absolute entry into [1, 2).

    Division by it does not round, and squares of the quotients stay within float32. It is one half
    if all entries are 0.
    """
    low, high = torch.aminmax(columns)
    _, exponent = torch.frexp(torch.maximum(high, -low))
    return torch.ldexp(torch.ones_like(low, dtype=torch.float64), exponent - 1)


def subtract_mean_(columns: Tensor) -> Tensor:
    """Subtracts the mean over rows from ``[N, K]`` in place and returns it ``[K]`` in float64.

    The mean is computed twice: of the columns, and of what is left after the first subtraction. The
    rounding error of the second is relative to the deviations and not to the mean, so their sum
    errs by 1e-7 of a deviation at most. That is far below the mean's own noise, and costs less than
    a mean in float64.
    """
    first = columns.mean(0)
    second = columns.sub_(first).mean(0)
    columns.sub_(second)
    return first.double() + second.double()


def squared_covariance_of_gram(gram: Tensor) -> Tensor:
    """``Q`` ``[...]`` of blocks of ``n`` trajectories, from their Gram matrices ``[..., n, n]``."""
    n = gram.shape[-1]
    by_row = gram.mean(-1, keepdim=True)
    centred = gram - by_row - by_row.mT + by_row.mean(-2, keepdim=True)
    variance = centred.diagonal(dim1=-2, dim2=-1).sum(-1) / (n - 1)
    return unbiased_squared_covariance(centred.square().sum((-2, -1)), variance, n)


def unbiased_squared_covariance(squared_norm: Tensor, variance: Tensor, n: int) -> Tensor:
    """``Q`` from a product of centred gradients; unbiased for normal gradients.

    ``(n - 1)^2 / ((n - 2) (n + 1)) (|C C^T|^2 / (n - 1)^2 - V^2 / (n - 1))``, with the centred
    gradients ``C`` ``[n, P]``.

    Args:
        squared_norm: the squared Frobenius norm of ``C C^T``, or of ``C^T C``, which is the same.
        variance: ``V``, unbiased.
        n: number of trajectories.
    """
    plug_in = squared_norm / (n - 1) ** 2
    return (n - 1) ** 2 / ((n - 2) * (n + 1)) * (plug_in - variance.square() / (n - 1))
