"""One line of the gradient laboratory's answer: one estimator at one horizon."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, final

from torch import Tensor

from pgtoolkit.gradient_statistics import GradientStatistics, gradient_difference

Estimator = Literal["score_function", "pathwise", "mixed"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Statistics of one estimator's gradient. A number that does not exist is NaN.

    They are of the gradient of the return itself, not divided by the horizon; ``_low`` and
    ``_high`` are the ends of 95 % intervals. If the gradient is not finite, all of them are NaN.
    """

    estimator: Estimator
    horizon: int
    trajectories: int
    mean_length: float
    """Steps that a trajectory really has: less than the horizon where episodes end before it."""
    seconds: float
    """Wall time of this horizon, all estimators together."""
    variance: float
    """Trace of the covariance of one trajectory's gradient."""
    variance_low: float
    variance_high: float
    signal: float
    """Squared norm of the mean gradient, unbiased; may be negative."""
    signal_low: float
    signal_high: float
    snr: float
    """Signal over variance."""
    noise_scale: float
    """Variance over signal: the trajectories that an update needs for an SNR of 1."""
    effective_dimension: float
    detectability: float
    """How many standard deviations the signal stands above none."""
    largest_share: float
    """Part of the squared spread that one trajectory makes up: near 1, variance and interval are
    not to be trusted."""
    bias: float
    """Squared norm of the mean difference from the score function on the same trajectories,
    unbiased; like the next three, NaN for the score function itself."""
    bias_low: float
    bias_high: float
    bias_z: float
    """How far it stands above no bias, on the scale of a normal variable."""


OWN = (
    "variance",
    "variance_low",
    "variance_high",
    "signal",
    "signal_low",
    "signal_high",
    "snr",
    "noise_scale",
    "effective_dimension",
    "detectability",
    "largest_share",
)
BIAS = {
    "bias": "signal",
    "bias_low": "signal_low",
    "bias_high": "signal_high",
    "bias_z": "significance",
}
"""A measurement's number, and the statistic of the matched difference that it is."""


def statistics_of(
    gradients: Mapping[str, Tensor], score_function: Mapping[str, Tensor]
) -> dict[str, float]:
    """The statistics in a :class:`Measurement`.

    Args:
        gradients: ``{parameter name: [N, *shape]}`` by the estimator.
        score_function: by the score function, on the same trajectories; the same object if that is
            the estimator.

    Raises:
        RequestError: fewer than three trajectories.
    """
    if not all(bool(gradient.isfinite().all()) for gradient in gradients.values()):
        return dict.fromkeys((*OWN, *BIAS), math.nan)
    own = GradientStatistics.of(gradients)
    numbers = {name: float(getattr(own, name)) for name in OWN}
    if gradients is score_function:
        return numbers | dict.fromkeys(BIAS, math.nan)
    difference = GradientStatistics.of(gradient_difference(score_function, gradients))
    return numbers | {name: float(getattr(difference, source)) for name, source in BIAS.items()}
