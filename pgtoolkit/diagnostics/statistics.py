"""How good is this gradient? Unbiased statistics of per-trajectory gradients, with intervals.

With the mean gradient ``m``, as exact as float64 would have it because the signal is a small
difference of large numbers, and deviations ``c_i = g_i - m``. Those and their products are taken in
the gradients' own precision: in float32 ``V`` and ``Q`` are then within 1e-6, and ``U`` within 1e-5
of its standard error. Results are in float64:

- variance ``V = sum_i |c_i|^2 / (N - 1)``, the unbiased trace of the covariance of one trajectory's
  gradient; the update, a mean of ``N``, has ``V / N``;
- signal ``U = |m|^2 - V / N``, the unbiased squared norm of the mean gradient, which is the mean of
  ``g_i . g_j`` over ``i != j``. ``U`` may be negative and is never clipped;
- SNR ``U / V`` of one trajectory; noise scale ``V / U``, the trajectories that an update needs for
  an SNR of 1 (McCandlish et al. 2018);
- ``Q``, the trace of the squared covariance, unbiased under normality and too large with heavy
  tails, which makes every z careful; from the Gram matrices of blocks of trajectories (one up to 64
  of them, then blocks of 16, averaged); effective dimension
  ``V^2 / Q``; detectability ``U / sqrt(2 Q / (N (N - 1)))``, and the same on a normal scale,
  :func:`significance`;
- 95 % intervals by the leave-one-out jackknife, of ``log V`` and of ``U``;
- largest share, the part of the squared spread that one trajectory makes up: the heavy-tail alarm.

They hold for independent trajectories. A baseline that is fitted or averaged on the same batch
makes them dependent.
"""

import dataclasses
from collections.abc import Mapping
from typing import Self, final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.moments import Spread, jackknife
from pgtoolkit.diagnostics.significance import effective_dimension, significance, standardised
from pgtoolkit.errors import RequestError

MIN_TRAJECTORIES = 3
"""The fewest trajectories for which every statistic exists."""

TINY = torch.finfo(torch.float64).tiny


@final
@dataclasses.dataclass(frozen=True, eq=False)
class GradientStatistics:
    """Statistics of one estimator's gradient over ``N`` trajectories; scalars in float64."""

    num_trajectories: int
    norm: Tensor
    """Norm of the mean gradient, before clipping."""
    variance: Tensor
    """``V``, per trajectory."""
    variance_low: Tensor
    variance_high: Tensor
    signal: Tensor
    """``U``; may be negative."""
    signal_low: Tensor
    signal_high: Tensor
    squared_covariance: Tensor
    """``Q``, the trace of the squared covariance."""
    largest_share: Tensor
    """``max_i |g_i - mean|^2 / sum_i |g_i - mean|^2``: near ``1/N`` if all trajectories are alike.
    Far above it, a few decide, and ``V`` and its interval are not to be trusted."""
    parameter_variance: dict[str, Tensor]
    """``V`` of each parameter tensor; they add up to ``variance``."""

    @property
    def snr(self) -> Tensor:
        """``U / V`` of one trajectory."""
        return self.signal / self.variance

    @property
    def noise_scale(self) -> Tensor:
        """``V / U`` in trajectories; meaningless (negative or huge) while no signal is seen."""
        return self.variance / self.signal

    @property
    def effective_dimension(self) -> Tensor:
        """``V^2 / Q``, kept within 1 and ``(N - 1)^2``; 1 if all gradients agree."""
        return effective_dimension(self.variance, self.squared_covariance, self.num_trajectories)

    @property
    def detectability(self) -> Tensor:
        """``U / sqrt(2 Q / (N (N - 1)))`` (Chen and Qin 2010); 0 if the signal is 0."""
        n = self.num_trajectories
        return standardised(self.signal, self.squared_covariance.clamp_min(0), n)

    @property
    def significance(self) -> Tensor:
        """The z of the signal against none, on a normal scale: see :func:`significance`."""
        return significance(
            self.signal, self.variance, self.squared_covariance, self.num_trajectories
        )

    @classmethod
    def of(cls, gradients: Mapping[str, Tensor]) -> Self:
        """From per-trajectory gradients ``{parameter name: [N, *shape]}``.

        Raises:
            RequestError: fewer than three trajectories.
        """
        n = next(iter(gradients.values())).shape[0]
        if n < MIN_TRAJECTORIES:
            raise RequestError(
                f"gradient statistics need at least {MIN_TRAJECTORIES} trajectories, not {n}: "
                "use more environments (--num-envs)"
            )
        spread = Spread.of(gradients)
        variance = spread.squares.sum() / (n - 1)
        signal = spread.squared_mean - variance / n
        variance_low, variance_high, signal_low, signal_high = jackknife(spread, variance, signal)
        return cls(
            num_trajectories=n,
            norm=spread.squared_mean.sqrt(),
            variance=variance,
            variance_low=variance_low,
            variance_high=variance_high,
            signal=signal,
            signal_low=signal_low,
            signal_high=signal_high,
            squared_covariance=spread.squared_covariance,
            largest_share=spread.squares.max() / spread.squares.sum().clamp_min(TINY),
            parameter_variance={name: s.sum() / (n - 1) for name, s in spread.by_parameter.items()},
        )


def flatten_gradients(gradients: Mapping[str, Tensor]) -> Tensor:
    """``{name: [N, *shape]}`` to ``[N, P]`` in float64."""
    return torch.cat([_rows(gradient) for gradient in gradients.values()], dim=1)


def variance(gradients: Mapping[str, Tensor]) -> Tensor:
    """``V`` alone, a scalar in float64."""
    parts = []
    for gradient in gradients.values():
        rows = _rows(gradient)
        centred = rows - rows.mean(0)
        parts.append(torch.linalg.vecdot(centred, centred).sum() / (len(rows) - 1))
    return torch.stack(parts).sum()


def entry_variances(flat: Tensor) -> Tensor:
    """Unbiased variance of each column of ``[N, P]``; several times faster here than ``var(0)``."""
    return (flat - flat.mean(0)).square().sum(0) / (flat.shape[0] - 1)


def _rows(gradient: Tensor) -> Tensor:
    return gradient.double().reshape(gradient.shape[0], -1)


def gradient_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``a_i - b_i`` of matched trajectories.

    Its mean is zero if and only if both are unbiased for the same objective, or biased alike. The
    signal of its statistics is the squared bias.
    """
    return {name: a[name] - b[name] for name in a}


def cosine(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    """Cosine of the angle between two mean gradients."""
    mean_a, mean_b = (torch.cat([_rows(x[name]).mean(0) for name in a]) for x in (a, b))
    return torch.nn.functional.cosine_similarity(mean_a, mean_b, dim=0)
