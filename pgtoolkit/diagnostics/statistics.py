"""Unbiased statistics of per-trajectory gradients, with confidence intervals.

Notation: ``g_i`` is the gradient of trajectory ``i`` of ``N``, ``m`` the mean gradient and
``c_i = g_i - m`` a centred gradient.

- Variance ``V = sum_i |c_i|^2 / (N - 1)``: the unbiased trace of the covariance of one trajectory's
  gradient. The update is a mean of ``N`` gradients and has the variance ``V / N``.
- Signal ``U = |m|^2 - V / N``: the unbiased squared norm of the mean gradient, equal to the mean of
  ``g_i . g_j`` over ``i != j``. ``U`` may be negative and is never clipped.
- SNR ``U / V`` of one trajectory. Noise scale ``V / U``: the number of trajectories with which an
  update has an SNR of 1 (McCandlish et al. 2018).
- ``Q``: the trace of the squared covariance. It is unbiased if gradients are normal, and too large
  if they have heavy tails, so that every z is too small rather than too large. It is computed from
  Gram matrices: one for up to 64 trajectories, and otherwise the average over blocks of 16.
- Effective dimension ``V^2 / Q``. Detectability ``U / sqrt(2 Q / (N (N - 1)))``, and the same on a
  normal scale, :func:`significance <pgtoolkit.diagnostics.significance.significance>`.
- 95 % intervals of ``V`` and ``U`` (:mod:`pgtoolkit.diagnostics.intervals`): NaN where so few
  trajectories make up the variance that nothing can be said, such as in a batch without any reward.
- Largest share: one trajectory's share of ``sum_i |c_i|^2``, at most; near 1 it warns of a heavy
  tail.

They hold for independent trajectories. A baseline that is fitted or averaged on the same batch
makes trajectories dependent.

The mean is as exact as one in float64, because the signal is a small difference of large numbers.
Deviations and their products are computed in the gradients' own precision: in float32 ``V`` and
``Q`` are then within a relative 1e-6, and ``U`` within 1e-5 of its standard error. Results are in
float64.
"""

import dataclasses
from collections.abc import Mapping
from typing import Self, final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.intervals import (
    FLOAT64_TINY,
    Deviations,
    signal_interval,
    variance_interval,
)
from pgtoolkit.diagnostics.moments import TrajectoryMoments
from pgtoolkit.diagnostics.outer_products import SampleGradient, difference, num_samples
from pgtoolkit.diagnostics.significance import effective_dimension, significance, standardised
from pgtoolkit.errors import SettingError

MIN_TRAJECTORIES = 3
"""The fewest trajectories for which every statistic exists."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class GradientStatistics:
    """Statistics of one estimator's gradient over ``N`` trajectories, in float64."""

    num_trajectories: int
    mean: Tensor
    """The mean gradient ``[P]`` in float64, before clipping."""
    variance: Tensor
    """``V``, the trace of the covariance of one trajectory's gradient."""
    variance_low: Tensor
    """This and the other ends of 95 % intervals are NaN where N is too small for an interval."""
    variance_high: Tensor
    signal: Tensor
    """``U``, the unbiased squared norm of the mean gradient; may be negative."""
    signal_low: Tensor
    signal_high: Tensor
    squared_covariance: Tensor
    """``Q``, the trace of the squared covariance."""
    largest_share: Tensor
    """``max_i |c_i|^2 / sum_i |c_i|^2``: near ``1/N`` if all trajectories contribute alike. If far
    larger, a few trajectories determine ``V``, and ``V`` and its interval are unreliable."""
    deviations: Deviations
    """The squared deviations of the trajectories, from which the intervals come."""
    parameter_variance: dict[str, Tensor]
    """``V`` of each parameter tensor; their sum is ``variance``."""

    @property
    def norm(self) -> Tensor:
        """Norm of the mean gradient."""
        return self.mean.square().sum().sqrt()

    @property
    def snr(self) -> Tensor:
        """``U / V`` of one trajectory."""
        return self.signal / self.variance

    @property
    def noise_scale(self) -> Tensor:
        """``V / U`` in trajectories; meaningless (negative or huge) without a detectable signal."""
        return self.variance / self.signal

    @property
    def effective_dimension(self) -> Tensor:
        """``V^2 / Q``, clamped to [1, ``(N - 1)^2``]; 1 if all gradients are equal."""
        return effective_dimension(self.variance, self.squared_covariance, self.num_trajectories)

    @property
    def detectability(self) -> Tensor:
        """``U / sqrt(2 Q / (N (N - 1)))`` (Chen and Qin 2010); 0 if the signal is 0."""
        n = self.num_trajectories
        return standardised(self.signal, self.squared_covariance.clamp_min(0), n)

    @property
    def significance(self) -> Tensor:
        """The z of the hypothesis of no signal, on a normal scale.

        See :func:`significance <pgtoolkit.diagnostics.significance.significance>`.
        """
        return significance(
            self.signal, self.variance, self.squared_covariance, self.num_trajectories
        )

    @classmethod
    def of(cls, gradients: Mapping[str, SampleGradient]) -> Self:
        """Computes the statistics of gradients ``{parameter name: [N, *shape]}``, one a trajectory.

        A weight's may be given as :class:`OuterProducts
        <pgtoolkit.diagnostics.outer_products.OuterProducts>`, which is much faster.

        Raises:
            RequestError: fewer than three trajectories.
        """
        n = num_samples(next(iter(gradients.values())))
        if n < MIN_TRAJECTORIES:
            raise SettingError(
                f"gradient statistics need at least {MIN_TRAJECTORIES} trajectories, not {n}: "
                "use more environments (--num-envs)"
            )
        moments = TrajectoryMoments.of(gradients)
        squares = moments.squares
        variance = squares.sum() / (n - 1)
        squared_mean = moments.squared_mean
        signal = squared_mean - variance / n
        deviations = Deviations.of(squares, moments.projections, moments.squared_covariance)
        variance_low, variance_high = variance_interval(deviations)
        signal_low, signal_high = signal_interval(deviations, squared_mean)
        by_parameter = moments.parameter_squares.items()
        return cls(
            num_trajectories=n,
            mean=moments.mean,
            variance=variance,
            variance_low=variance_low,
            variance_high=variance_high,
            signal=signal,
            signal_low=signal_low,
            signal_high=signal_high,
            squared_covariance=moments.squared_covariance,
            largest_share=squares.max() / squares.sum().clamp_min(FLOAT64_TINY),
            deviations=deviations,
            parameter_variance={name: square.sum() / (n - 1) for name, square in by_parameter},
        )


def flatten_gradients(gradients: Mapping[str, Tensor]) -> Tensor:
    """``{name: [N, *shape]}`` to ``[N, P]`` in float64."""
    return torch.cat([_rows(gradient) for gradient in gradients.values()], dim=1)


def entry_variances(flat: Tensor) -> Tensor:
    """Unbiased variance ``[P]`` of the columns of ``[N, P]``; several times as fast as ``var``."""
    return (flat - flat.mean(0)).square().sum(0) / (flat.shape[0] - 1)


def _rows(gradient: Tensor) -> Tensor:
    """``[N, *shape]`` as ``[N, P]`` in float64."""
    return gradient.double().reshape(gradient.shape[0], -1)


def gradient_difference(
    a: Mapping[str, SampleGradient], b: Mapping[str, SampleGradient]
) -> dict[str, SampleGradient]:
    """``a_i - b_i`` of two estimators on the same trajectories: ``{name: [N, *shape]}``.

    Its expectation is zero if and only if both estimators have the same expectation. If ``a`` is
    unbiased, the signal ``U`` of the difference is the squared bias of ``b``.
    """
    return {name: difference(a[name], b[name]) for name in a}
