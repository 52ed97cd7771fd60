"""Gaussian expectations with closed forms of the gradient and of its estimators' variances.

``x = mean + std * eps``, and ``f`` is ``(x - k)^2``, ``exp(-k x^2)`` or ``cos(k x)``: the problems
of figures 2 and 3 of Mohamed et al. (2020). The estimators of this package are tested against them,
and other estimators can be. All variances are of one sample's estimate.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError

Parameter = Literal["mean", "std"]


class ByParameter(NamedTuple):
    """One number for the derivative by the mean, one for that by the standard deviation."""

    mean: float
    std: float


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianProblem:
    """``E[f(x)]``, ``x ~ N(mean, std^2)``, with its exact gradient and variances."""

    f: Callable[[Tensor], Tensor]
    """The function, elementwise."""
    mean: float
    std: float
    expectation: float
    """``E f``, the function's expectation."""
    variance: float
    """``Var f``, the function's variance."""
    gradient: ByParameter
    """``dE[f]/dmean`` and ``dE[f]/dstd``."""
    pathwise_variance: ByParameter
    """Variance of the pathwise estimate."""
    raw_score_variance: ByParameter
    """Variance of ``f S``, the score function's estimate without a baseline. The score ``S`` is
    ``eps / std`` by the mean and ``(eps^2 - 1) / std`` by the standard deviation."""
    cross_moment: ByParameter
    """``E[f S^2]``."""

    @property
    def fisher(self) -> ByParameter:
        """``E[S^2]``: ``1 / std^2`` and ``2 / std^2``."""
        return ByParameter(1 / self.std**2, 2 / self.std**2)

    @property
    def optimal_baseline(self) -> ByParameter:
        """The constant baseline with the least variance, ``E[f S^2] / E[S^2]``."""
        return ByParameter(
            self.cross_moment.mean / self.fisher.mean, self.cross_moment.std / self.fisher.std
        )

    def score_function_variance(self, parameter: Parameter, baseline: float = 0.0) -> float:
        """Variance of the score function's estimate with a constant baseline ``b``.

        ``Var(f S) - 2 b E[f S^2] + b^2 E[S^2]``.
        """
        raw: float = getattr(self.raw_score_variance, parameter)
        cross: float = getattr(self.cross_moment, parameter)
        fisher: float = getattr(self.fisher, parameter)
        return raw - 2 * baseline * cross + baseline * baseline * fisher

    def leave_one_out_variance(self, parameter: Parameter, num_samples: int) -> float:
        """Variance of the *mean* of ``N`` samples' estimates with the leave-one-out baseline.

        The estimates are dependent, and their mean is a U-statistic:
        ``V(b = E f) / N + (g^2 + Var f * E[S^2]) / (N (N - 1))``.
        """
        n = num_samples
        own = self.score_function_variance(parameter, self.expectation) / n
        gradient: float = getattr(self.gradient, parameter)
        fisher: float = getattr(self.fisher, parameter)
        return own + (gradient * gradient + self.variance * fisher) / (n * (n - 1))


def quadratic(mean: float, std: float, k: float) -> GaussianProblem:
    """The problem with ``f = (x - k)^2``."""
    d, s = mean - k, std
    return GaussianProblem(
        f=lambda x: (x - k) ** 2,
        mean=mean,
        std=std,
        expectation=d**2 + s**2,
        variance=4 * d**2 * s**2 + 2 * s**4,
        gradient=ByParameter(2 * d, 2 * s),
        pathwise_variance=ByParameter(4 * s**2, 4 * d**2 + 8 * s**2),
        raw_score_variance=ByParameter(
            d**4 / s**2 + 14 * d**2 + 15 * s**2, 2 * d**4 / s**2 + 60 * d**2 + 74 * s**2
        ),
        cross_moment=ByParameter((d**2 + 3 * s**2) / s**2, 2 * (d**2 + 5 * s**2) / s**2),
    )


def quadratic_measure_valued_variance(mean: float, std: float, k: float) -> ByParameter:
    """Variance of this package's measure-valued derivatives for ``f = (x - k)^2``."""
    d = mean - k
    return ByParameter(d**2 * (16 / math.pi - 4), 4 * d**2 + 4 * std**2)


def exponential(mean: float, std: float, k: float) -> GaussianProblem:
    """The problem with ``f = exp(-k x^2)``.

    The closed forms are moments of the Gaussians that are proportional to the density times ``f``
    and to the density times ``f^2``.

    Raises:
        RequestError: ``k <= -1 / (4 std^2)``, where ``f`` has no variance.
    """
    m, s = mean, std
    if 1 + 4 * k * s**2 <= 0:
        raise RequestError(
            f"k = {k} at std = {std}: exp(-k x^2) has no variance; let 4 k std^2 > -1"
        )
    u, w = 1 + 2 * k * s**2, 1 + 4 * k * s**2
    J = u**-0.5 * math.exp(-k * m**2 / u)
    g_m, g_s = -2 * k * m * J / u, J * (-2 * k * s / u + 4 * k**2 * m**2 * s / u**2)
    Z = w**-0.5 * math.exp(-2 * k * m**2 / w)
    _, e2, e3, e4 = _normal_moments(-4 * k * s * m / w, 1 / w)
    _, f2, _, f4 = _normal_moments(-2 * k * s * m / u, 1 / u)
    return GaussianProblem(
        f=lambda x: torch.exp(-k * x**2),
        mean=mean,
        std=std,
        expectation=J,
        variance=Z - J**2,
        gradient=ByParameter(g_m, g_s),
        pathwise_variance=ByParameter(
            4 * k**2 * Z * (m**2 + 2 * m * s * (-4 * k * s * m / w) + s**2 * e2) - g_m**2,
            4 * k**2 * Z * (m**2 * e2 + 2 * m * s * e3 + s**2 * e4) - g_s**2,
        ),
        raw_score_variance=ByParameter(
            Z * e2 / s**2 - g_m**2, Z * (e4 - 2 * e2 + 1) / s**2 - g_s**2
        ),
        cross_moment=ByParameter(J * f2 / s**2, J * (f4 - 2 * f2 + 1) / s**2),
    )


def cosine(mean: float, std: float, k: float) -> GaussianProblem:
    """The problem with ``f = cos(k x)``."""
    m, s = mean, std
    e, c = math.exp(-(k**2) * s**2 / 2), 2 * k * s
    q = math.exp(-(c**2) / 2) * math.cos(2 * k * m)
    J, g_m, g_s = e * math.cos(k * m), -k * e * math.sin(k * m), -(k**2) * s * e * math.cos(k * m)
    return GaussianProblem(
        f=lambda x: torch.cos(k * x),
        mean=mean,
        std=std,
        expectation=J,
        variance=(1 + q) / 2 - J**2,
        gradient=ByParameter(g_m, g_s),
        pathwise_variance=ByParameter(
            k**2 * (1 - q) / 2 - g_m**2, k**2 * (1 - (1 - c**2) * q) / 2 - g_s**2
        ),
        raw_score_variance=ByParameter(
            (1 + (1 - c**2) * q) / (2 * s**2) - g_m**2,
            (2 + (c**4 - 4 * c**2 + 2) * q) / (2 * s**2) - g_s**2,
        ),
        cross_moment=ByParameter(
            (1 - k**2 * s**2) * J / s**2, (k**4 * s**4 - 4 * k**2 * s**2 + 2) * J / s**2
        ),
    )


def _normal_moments(a: float, v: float) -> tuple[float, float, float, float]:
    """The first four raw moments of ``N(a, v)``."""
    return a, a**2 + v, a**3 + 3 * a * v, a**4 + 6 * a**2 * v + 3 * v**2
