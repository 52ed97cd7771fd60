"""Exact moments of the two gradient estimators under an open-loop Gaussian policy.

Where the distribution of the return under ``u_t = mean + sigma eps_t`` is known, so are the mean,
variance and bias of every gradient estimate, without sampling. The score-function estimate of a
return ``f`` with a constant baseline ``b`` is ``(f - b) S``, so that with the Fisher information
``I = E[S^2]`` and ``B = E[f S^2]``::

    Var_b = E[f^2 S^2] - 2 b B + b^2 I - g^2,   least at b* = B / I   (Greensmith et al. 2004)
"""

import dataclasses
import math
from typing import NamedTuple, final

from numpy.polynomial import Polynomial

from pgtoolkit.envs.arguments import require_finite
from pgtoolkit.errors import RequestError


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactMoments:
    """Moments of a trajectory's estimates of the expected return's derivative by one parameter."""

    gradient: float
    """The true derivative, which the score function estimates without bias."""
    pathwise_mean: float
    """The mean of the pathwise estimate: the gradient, unless the return jumps."""
    pathwise_variance: float
    score_function_variance: float
    """The variance without a baseline, with the whole return as the weight."""
    optimal_baseline: float
    """The constant baseline that gives the score function the least variance."""
    optimal_baseline_variance: float
    """The score function's variance with that baseline."""
    fisher_information: float
    """``E[S^2]`` of the score ``S`` of a whole trajectory."""

    @property
    def pathwise_bias(self) -> float:
        """The mean of the pathwise estimate less the gradient."""
        return self.pathwise_mean - self.gradient

    def baseline_variance(self, baseline: float) -> float:
        """The score function's variance with this constant baseline."""
        excess = self.fisher_information * (baseline - self.optimal_baseline) ** 2
        return self.optimal_baseline_variance + excess


class ExactGradient(NamedTuple):
    """The moments for both parameters of the policy."""

    mean: ExactMoments
    """Moments of the derivative by the action's mean."""
    sigma: ExactMoments
    """Moments of the derivative by the action's standard deviation ``sigma``.

    By ``log sigma``, gradients are ``sigma`` times as large and variances ``sigma^2`` times.
    """


def exact_moments(
    *,
    gradient: float,
    pathwise_mean: float,
    pathwise_square: float,
    score_square: float,
    product: float,
    fisher: float,
) -> ExactMoments:
    """The variances from second moments; a negative result of rounding becomes 0.

    Args:
        gradient: ``g``.
        pathwise_mean: the mean of the pathwise estimate.
        pathwise_square: the mean square of the pathwise estimate.
        score_square: ``E[f^2 S^2]``.
        product: ``B = E[f S^2]``.
        fisher: ``I = E[S^2]``.
    """
    variance = score_square - gradient * gradient
    return ExactMoments(
        gradient=gradient,
        pathwise_mean=pathwise_mean,
        pathwise_variance=max(pathwise_square - pathwise_mean * pathwise_mean, 0.0),
        score_function_variance=max(variance, 0.0),
        optimal_baseline=product / fisher,
        optimal_baseline_variance=max(variance - product * product / fisher, 0.0),
        fisher_information=fisher,
    )


def phi(x: float) -> float:
    """The density of a standard normal."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def Phi(x: float) -> float:
    """The distribution function of a standard normal."""
    return math.erfc(-x / math.sqrt(2)) / 2


def polynomial_mean(polynomial: Polynomial, above: float = -math.inf) -> float:
    """``E[p(eps) 1(eps > a)]`` for a standard normal ``eps``, exactly.

    ``T_n = E[eps^n 1(eps > a)]`` follows from integration by parts: ``T_0 = 1 - Phi(a)``, ``T_1 =
    phi(a)``, ``T_n = a^(n-1) phi(a) + (n - 1) T_(n-2)``.
    """
    everywhere = above == -math.inf
    edge = 0.0 if everywhere else phi(above)
    moments = [Phi(-above), edge]
    for n in range(2, len(polynomial.coef)):
        boundary = 0.0 if everywhere else above ** (n - 1) * edge
        moments.append(boundary + (n - 1) * moments[n - 2])
    return sum(float(c) * moment for c, moment in zip(polynomial.coef, moments, strict=False))


def require_gaussian(owner: str, mean: float, sigma: float) -> None:
    """Raises unless the two are a Gaussian's mean and standard deviation.

    Raises:
        RequestError: one is not finite, or sigma is not positive.
    """
    require_finite(owner, mean=mean, sigma=sigma)
    if sigma <= 0:
        raise RequestError(
            f"{owner}'s sigma is {sigma}: the policy's standard deviation must be positive"
        )
