"""95 % intervals of the variance and of the signal of gradients, or none where N is too small.

Notation: ``s_i = |c_i|^2`` is the squared deviation of trajectory ``i``, ``w_i = s_i / sum s`` its
share, and ``n_eff = 1 / sum w_i^2`` the effective number of trajectories that make up the sum: N if
all contribute alike, and 1 if one trajectory is all of it. ``nu = V^2 / Q`` is the effective
dimension.

Neither interval is given if too few trajectories make up the sum: its ends are then NaN. With few
trajectories nothing shows how heavy a tail is, so rules are needed on when to say nothing. Their
constants were set on the laws of ``scripts/studies/interval_coverage.py``, which prints how often
the intervals cover the truth.
"""

import dataclasses
import math
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.significance import effective_dimension

NORMAL_95 = 1.959963984540054
"""Half-width of a 95 % interval in standard deviations of a normal variable."""

FLOAT64_TINY = torch.finfo(torch.float64).tiny
"""The smallest normal number of float64, to divide by in place of 0."""

MIN_CONTRIBUTING = 2.0
"""The smallest ``n_eff`` at which the signal has an interval."""

MIN_CONTRIBUTING_SCALE = 2.2
"""The variance has an interval if ``n_eff`` is at least this times the square root of N.

That is 7 of 8, 9 of 16, 18 of 64, 36 of 256 and 70 of 1000 trajectories. A small ``n_eff`` of a
large N means a heavy tail, of which the largest deviations have not been seen yet.
"""

MIN_VARIANCE_DOF = 35.0
"""The smallest ``(N - 1) nu`` at which the variance has an interval.

It is the number of degrees of freedom of a variance of normal gradients: 5 effective dimensions
with 8 trajectories, or one dimension with 36.
"""

UNSEEN_ABOVE, UNSEEN_BELOW = 40.0, 5.0
"""How far :attr:`Deviations.unseen` moves the upper and the lower end of the variance."""

SKEWNESS_WEIGHT = 10.0
"""The weight of the squared skewness in :attr:`Deviations.unseen`."""


class Interval(NamedTuple):
    """The two ends of a 95 % interval, scalars in float64; NaN if there is no interval."""

    low: Tensor
    high: Tensor


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Deviations:
    """What the squared deviations of N trajectories say about the variance and its error."""

    num_trajectories: int
    shares: Tensor
    """``w_i`` ``[N]``; 0 if all gradients are equal."""
    variance: Tensor
    """``V``."""
    dimension: Tensor
    """``nu``."""
    contributing: Tensor
    """``n_eff``; 0 if all gradients are equal."""
    contributing_to_error: Tensor
    """The effective number of trajectories that make up ``sum w_i^2``, the error of ``V``."""
    along_mean: Tensor
    """The variance of ``c_i . m``, the deviations along the mean gradient ``m``."""
    skewness: Tensor
    """The skewness of ``c_i . m``; 0 if they are 0."""

    @classmethod
    def of(cls, squares: Tensor, projections: Tensor, squared_covariance: Tensor) -> Self:
        """Sums over trajectories.

        Args:
            squares: ``|c_i|^2`` ``[N]`` in float64.
            projections: ``c_i . m`` ``[N]``.
            squared_covariance: ``Q``, a scalar.
        """
        n, total = len(squares), squares.sum()
        variance = total / (n - 1)
        shares = squares / total.clamp_min(FLOAT64_TINY)
        squared = shares.square()
        second, fourth = squared.sum(), squared.square().sum()
        spread = projections.square().mean()
        return cls(
            num_trajectories=n,
            shares=shares,
            variance=variance,
            dimension=effective_dimension(variance, squared_covariance, n),
            contributing=torch.where(total > 0, 1 / second.clamp_min(FLOAT64_TINY), 0.0),
            contributing_to_error=second.square() / fourth.clamp_min(FLOAT64_TINY),
            along_mean=spread * n / (n - 1),
            skewness=(projections / spread.clamp_min(FLOAT64_TINY).sqrt()).pow(3).mean(),
        )

    @property
    def unseen(self) -> Tensor:
        """A measure of what rarer trajectories than those seen may add to the variance.

        ``(N / n_eff - 1 + 10 skewness^2 / nu) / N``: a trajectory that is seen once in N may as
        well be missing, and it may deviate the more, the more the others differ in size.
        """
        spread = self.num_trajectories / self.contributing.clamp_min(1) - 1
        skewed = SKEWNESS_WEIGHT * self.skewness.square() / self.dimension
        return (spread + skewed) / self.num_trajectories

    @property
    def allowances(self) -> tuple[Tensor, Tensor]:
        """Factors, at least 1, by which such a tail may make the variance smaller and larger."""
        return 1 + UNSEEN_BELOW * self.unseen, 1 + UNSEEN_ABOVE * self.unseen

    @property
    def enough(self) -> Tensor:
        """Whether so many trajectories make up the variance that it has an interval, a bool."""
        n = self.num_trajectories
        contributing = self.contributing >= MIN_CONTRIBUTING_SCALE * math.sqrt(n)
        return contributing & ((n - 1) * self.dimension >= MIN_VARIANCE_DOF)

    @property
    def left_out_logs(self) -> Tensor:
        """The logarithm of the variance without trajectory ``i``, over that of all, ``[N]``."""
        n = self.num_trajectories
        rest = (1 - n / (n - 1) * self.shares) * (n - 1) / (n - 2)
        return rest.clamp_min(FLOAT64_TINY).log()

    @property
    def least_log_variance(self) -> Tensor:
        """The squared error of ``log V`` if gradients are normal, ``2 / ((N - 1) nu)``."""
        return 2 / ((self.num_trajectories - 1) * self.dimension)


def variance_interval(deviations: Deviations) -> Interval:
    """The interval of the variance ``V``; NaN where too few trajectories make it up.

    ``log V`` has the standard error of its jackknife, or that of normal gradients if that is
    larger. The quantile is Student's t with as many degrees of freedom as the error itself is known
    with (:func:`degrees_of_freedom`), and the ends are moved outwards by
    :attr:`Deviations.allowances`.
    """
    factor = log_error(deviations).clamp_max(700).exp()
    below, above = deviations.allowances
    return given_if(
        deviations.enough,
        deviations.variance / factor / below,
        deviations.variance * factor * above,
    )


def log_error(deviations: Deviations) -> Tensor:
    """Student's quantile times the standard error of ``log V``, before any allowance."""
    squared_error = jackknife_variance(deviations.left_out_logs)
    error = squared_error.maximum(deviations.least_log_variance).sqrt()
    degrees = degrees_of_freedom(deviations.contributing_to_error, deviations.num_trajectories)
    return student_95(degrees) * error


def signal_interval(deviations: Deviations, squared_mean: Tensor) -> Interval:
    """The interval of the signal ``U``; NaN if fewer than two trajectories make up the variance.

    If the true signal is ``u``, ``U`` has the variance ``4 u L / N + 2 Q / (N (N - 1))``, with the
    variance ``L`` of the gradient along its mean: the squares of the two errors are added. ``t`` is
    Student's quantile with ``(n_eff - 1) / 2`` degrees of freedom, corrected for the skewness along
    the mean on either side (:func:`hall_quantile`).

    The upper end is the largest ``u`` from which ``U`` is no more than ``t`` such deviations away
    (Wilson 1927, for a proportion): a mean may happen to be near 0, but then its error is that of
    the true signal. The lower end is ``t`` deviations for ``u = U`` below ``U``. There the smallest
    such ``u`` would be too high: where gradients are skewed, a batch that lacks the rare large ones
    has a wrong mean and a small variance at once. For the difference of the two estimators of
    ``x^2`` and 64 trajectories it would exclude 0 in 23 % of batches, this one does so in 3 %.

    Args:
        deviations: of the same gradients.
        squared_mean: ``|m|^2``, a scalar.
    """
    n = deviations.num_trajectories
    variance = deviations.variance
    signal = squared_mean - variance / n
    along = deviations.along_mean / squared_mean.clamp_min(FLOAT64_TINY)
    quantile = student_95((deviations.contributing - 1).clamp_min(0.5) / 2)
    skewness = deviations.skewness / math.sqrt(n)
    below = hall_quantile(skewness, quantile).clamp_min(0)
    above = (-hall_quantile(skewness, -quantile)).maximum(quantile)
    # The squared deviation of U where there is no signal, 2 Q / (N (N - 1)).
    without = 2 * variance.square() / deviations.dimension / (n * (n - 1))

    low = signal - below * (4 * along * signal.clamp_min(0) / n + without).sqrt()
    shift = 2 * above.square() * along / n
    inside = shift.square() + 2 * shift * signal + above.square() * without
    high = signal + shift + inside.clamp_min(0).sqrt()
    return given_if(deviations.contributing >= MIN_CONTRIBUTING, low, high)


def jackknife_variance(left_out: Tensor) -> Tensor:
    """The squared standard error of a statistic, from its values without each trajectory ``[N]``.

    ``(N - 1) / N sum_i (x_i - mean x)^2``.
    """
    return (len(left_out) - 1) * left_out.var(unbiased=False)


def degrees_of_freedom(contributing: Tensor, n: int) -> Tensor:
    """Degrees of freedom of a jackknife's squared error, from 1 over its relative variance.

    The squared error is a sum to which ``contributing`` trajectories contribute effectively, so its
    relative variance is about ``1 / contributing - 1 / N``. Two over it are the degrees of freedom
    of a chi-squared variable with the same variance (Satterthwaite 1946); two thirds over it are
    used, because with a heavy tail the sample shows less of it than there is. At least 2, and at
    most ``N - 1``.
    """
    relative = (1 / contributing.clamp_min(1) - 1 / n).clamp_min(0)
    return 1 / (1.5 * relative).clamp(1 / (n - 1), 1 / 2)


def student_95(degrees: Tensor) -> Tensor:
    """The 97.5 % quantile of Student's t, by the approximation of Wallace (1959).

    ``t^2 = d (exp(z^2 / d ((8 d + 3) / (8 d + 1))^2) - 1)`` with the normal quantile ``z``. It is
    4 % too large for two degrees of freedom, 0.2 % for ten, and more, to the safe side, below.
    """
    z = NORMAL_95 * (8 * degrees + 3) / (8 * degrees + 1)
    return (degrees * (z.square() / degrees).clamp_max(600).expm1()).sqrt()


def hall_quantile(skewness: Tensor, z: Tensor) -> Tensor:
    """A quantile of a studentised mean of skewed numbers (Hall 1992, section 3.9).

    With ``c`` the skewness of the numbers over ``sqrt N``, the studentised error ``T`` is normal to
    the next order once it is transformed as ``T + c T^2 / 3 + c^2 T^3 / 27 + c / 6``. The inverse
    of that is ``3 ((1 + c (z - c / 6))^(1/3) - 1) / c``.

    Args:
        skewness: ``c``.
        z: the quantile without skewness.
    """
    # Without skewness the quantile is z, which the formula gives up to rounding at this small c.
    c = torch.where(skewness.abs() < 1e-6, 1e-6, skewness)
    cube = 1 + c * (z - c / 6)
    return 3 * (cube.sign() * cube.abs() ** (1 / 3) - 1) / c


def given_if(condition: Tensor, low: Tensor, high: Tensor) -> Interval:
    """The interval, or NaN at both ends where the condition does not hold."""
    return Interval(torch.where(condition, low, math.nan), torch.where(condition, high, math.nan))
