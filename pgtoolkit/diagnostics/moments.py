"""Moments of per-trajectory gradients and jackknife intervals: what all statistics come from.

Notation: ``g_i`` is the gradient of trajectory ``i`` of ``N``, all parameters together; ``m`` is
the mean gradient, ``c_i = g_i - m`` a centred gradient, ``V`` the trace of the covariance of one
trajectory's gradient and ``Q`` the trace of the squared covariance.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Self, final

import torch
from torch import Tensor

NORMAL_95 = 1.959963984540054
"""Half-width of a 95 % interval in standard deviations of a normal variable."""

FLOAT64_TINY = torch.finfo(torch.float64).tiny
"""The smallest normal number of float64, to divide by in place of 0."""

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

    They are computed for some columns at a time, so no second array of size ``N P`` is made.
    """

    squared_mean: Tensor
    """``|m|^2``, a scalar."""
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

    @classmethod
    def of(cls, gradients: Mapping[str, Tensor]) -> Self:
        """Computes the moments of per-trajectory gradients ``{parameter name: [N, *shape]}``."""
        first = next(iter(gradients.values()))
        size, zeros = len(first), functools.partial(first.new_zeros, dtype=torch.float64)
        projections, means = zeros(size), []
        parameter_squares = {name: zeros(size) for name in gradients}
        blocks = 1 if size <= MAX_SINGLE_GRAM else size // GRAM_BLOCK
        block_size = size // blocks
        num_blocked = blocks * block_size
        gram = zeros(blocks, block_size, block_size)
        for parts in _column_chunks(gradients, max(CACHED_ENTRIES // size, MIN_COLUMNS)):
            columns = parts[0][1] if len(parts) == 1 else torch.cat([x for _, x in parts], 1)
            scale = power_of_two(columns)
            square = scale * scale
            rows = columns / scale
            mean = subtract_mean_(rows)
            means.append(mean.double() * scale)
            projections += (rows @ mean.to(rows)).double() * square
            blocked = rows[:num_blocked].view(blocks, block_size, -1)
            gram += (blocked @ blocked.mT).double() * square
            widths = [part.shape[1] for _, part in parts]
            for (name, _), own in zip(parts, torch.split(rows.square_(), widths, 1), strict=True):
                parameter_squares[name] += own.sum(1).double() * square
        squared_mean = torch.cat(means).square().sum()
        squared_covariance = squared_covariance_of_gram(gram).mean()
        return cls(squared_mean, projections, parameter_squares, squared_covariance)


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
    rounding error of the second is relative to the deviations and not to the mean, so the sum of
    the two is as exact as a mean in float64, at less cost.
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


def jackknife_intervals(
    moments: TrajectoryMoments, variance: Tensor, signal: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """95 % intervals of the variance ``V`` and of the signal ``U``, from leave-one-out estimates.

    Without trajectory ``i`` the mean is ``m - c_i / (N - 1)``, and the squares add up to
    ``sum_j |c_j|^2 - N / (N - 1) |c_i|^2``.

    The signal's interval is :func:`hall_interval`, but no shorter than it is where there is no
    signal: ``1.96 sqrt(2 Q / (N (N - 1)))`` to either side.

    The variance's interval is that of its logarithm, and its upper end is the larger one of that
    interval and of :func:`hall_interval`: an estimated variance tends to be too small, and far too
    small with a heavy tail. For the score function of ``x^2`` without a baseline the interval then
    covers 91 % instead of 87 % with 1000 trajectories, and 81 % instead of 74 % with 64.

    Returns:
        The lower and the upper end for the variance, then for the signal.
    """
    squares = moments.squares
    n = len(squares)
    variances = (squares.sum() - n / (n - 1) * squares) / (n - 2)
    means = moments.squared_mean - 2 * moments.projections / (n - 1) + squares / (n - 1) ** 2
    low, high = hall_interval(
        torch.stack([variance, signal]), torch.stack([variances, means - variances / (n - 1)])
    )
    # Where the mean gradient happens to be near 0, the influences on the signal are near 0 too, and
    # this half-width remains.
    half_width = NORMAL_95 * (2 * moments.squared_covariance.clamp_min(0) / (n * (n - 1))).sqrt()
    signal_low = low[1].minimum(signal - half_width)
    signal_high = high[1].maximum(signal + half_width)
    # The limit is for rounding: if one trajectory alone differs from the others, the variance
    # without it is 0.
    if not bool((variances > 1e-12 * variance).all()):
        # At most one trajectory differs, so the logarithm has no jackknife.
        highest = torch.maximum(variance, variances.max())
        return torch.zeros_like(variance), highest, signal_low, signal_high
    factor = (NORMAL_95 * math.sqrt(n - 1) * variances.log().std(unbiased=False)).exp()
    return variance / factor, torch.maximum(variance * factor, high[0]), signal_low, signal_high


def hall_interval(estimate: Tensor, left_out: Tensor) -> tuple[Tensor, Tensor]:
    """A 95 % jackknife interval, corrected for skewness (Hall 1992, section 3.9).

    With the standard error ``s``, and with ``c`` the skewness of the trajectories' influences over
    ``sqrt N``, the studentised error ``T`` is normal to the next order once it is transformed as
    ``T + c T^2 / 3 + c^2 T^3 / 27 + c / 6``. The inverse of that is
    ``h(z) = 3 ((1 + c (z - c / 6))^(1/3) - 1) / c``, and the ends are ``estimate - s h(+-1.96)``.

    Args:
        estimate: ``[...]`` from all trajectories.
        left_out: ``[..., N]`` the estimate without each trajectory.
    """
    n = left_out.shape[-1]
    influence = left_out.mean(-1, keepdim=True) - left_out
    deviation = influence.std(-1, unbiased=False)
    standardised = influence / deviation.clamp_min(FLOAT64_TINY).unsqueeze(-1)
    c = standardised.pow(3).mean(-1) / math.sqrt(n)
    # Without skewness h(z) = z, which the formula gives up to rounding at this small c.
    c = torch.where(c.abs() < 1e-6, 1e-6, c)
    z = torch.tensor([NORMAL_95, -NORMAL_95], dtype=c.dtype, device=c.device)
    cube = 1 + c.unsqueeze(-1) * (z - c.unsqueeze(-1) / 6)
    h = 3 * (cube.sign() * cube.abs() ** (1 / 3) - 1) / c.unsqueeze(-1)
    ends = estimate.unsqueeze(-1) - (math.sqrt(n - 1) * deviation).unsqueeze(-1) * h
    return ends[..., 0], ends[..., 1]
