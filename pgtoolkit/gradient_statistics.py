"""How good is this gradient? Unbiased statistics of per-trajectory gradients, with intervals.

All of them come from the ``N x N`` Gram matrix ``G_ij = g_i . g_j`` of the trajectories' gradients,
in float64, because the signal is a small difference of large numbers. With ``T = tr G`` and
``S = sum_ij G_ij``:

- variance ``V = (T - S/N) / (N - 1)``, the unbiased trace of the covariance of one trajectory's
  gradient; the update, a mean of ``N``, has ``V / N``;
- signal ``U = (S - T) / (N (N - 1))``, the unbiased squared norm of the mean gradient. The squared
  norm of the mean is too large by ``V / N``. ``U`` may be negative and is never clipped;
- SNR ``U / V`` of one trajectory; noise scale ``V / U``, the trajectories that an update needs for
  an SNR of 1 (McCandlish et al. 2018);
- ``Q``, the trace of the squared covariance, unbiased under normality; effective dimension
  ``V^2 / Q``; detectability ``U / sqrt(2 Q / (N (N - 1)))``, and the same on a normal scale,
  :func:`significance`;
- 95 % intervals by the leave-one-out jackknife, of ``log V`` and of ``U``;
- largest share, the part of the squared spread that one trajectory makes up: the heavy-tail alarm.

They hold for independent trajectories. A baseline that is fitted or averaged on the same batch
makes them dependent.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Self, final

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError

MIN_TRAJECTORIES = 3
"""The fewest trajectories for which every statistic exists."""

NORMAL_95 = 1.959963984540054


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
        """``V^2 / Q``, kept within 1 and ``N - 1``; 1 if all gradients agree."""
        return _effective_dimension(self.variance, self.squared_covariance, self.num_trajectories)

    @property
    def detectability(self) -> Tensor:
        """``U / sqrt(2 Q / (N (N - 1)))`` (Chen and Qin 2010); 0 if the signal is 0."""
        n = self.num_trajectories
        return _standardised(self.signal, self.squared_covariance.clamp_min(0), n)

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
        flat = flatten_gradients(gradients)
        n = flat.shape[0]
        if n < MIN_TRAJECTORIES:
            raise RequestError(
                f"gradient statistics need at least {MIN_TRAJECTORIES} trajectories, not {n}: "
                "use more environments (--num-envs)"
            )
        gram = flat @ flat.T
        variance, signal = _variance_and_signal(gram.trace(), gram.sum(), n)
        variance_low, variance_high, signal_low, signal_high = _jackknife(gram, variance, signal)
        return cls(
            num_trajectories=n,
            norm=flat.mean(0).norm(),
            variance=variance,
            variance_low=variance_low,
            variance_high=variance_high,
            signal=signal,
            signal_low=signal_low,
            signal_high=signal_high,
            squared_covariance=_squared_covariance(gram, variance),
            largest_share=_largest_share(flat),
            parameter_variance=_parameter_variance(flat, gradients),
        )


def significance(
    signal: Tensor, variance: Tensor, squared_covariance: Tensor, num_trajectories: int
) -> Tensor:
    """How far, on the scale of a normal variable, ``U`` stands above what chance makes of 0.

    Without a signal, ``U`` in units of its standard deviation ``sd = sqrt(2 Q / (N (N - 1)))`` is a
    sum of squares less its mean: chi-squared of ``nu = V^2 / Q`` degrees of freedom (Satterthwaite
    1946), and normal for large ``nu`` only. The cube root of ``X = nu + sqrt(2 nu) U / sd`` is
    normal for all (Wilson and Hilferty 1931):
    ``z = ((X / nu)^(1/3) - 1 + 2 / (9 nu)) / sqrt(2 / (9 nu))``. With ``nu = 1`` chance takes
    ``U / sd`` above 3 in 2 % of all cases, and z in about one of a thousand.

    What is left is skewness: with few trajectories and a heavy tail z exceeds 3 more often than a
    normal variable does (``docs/estimators.md`` has measured rates). 0 if all gradients are 0.

    Args:
        signal: ``U``, any shape; so are the next two.
        variance: ``V``.
        squared_covariance: ``Q``; ``nu`` is kept within what is possible, 1 to ``N - 1``.
        num_trajectories: ``N``.
    """
    n = num_trajectories
    nu = _effective_dimension(variance, squared_covariance, n)
    ratio = 1 + (2 / nu).sqrt() * _standardised(signal, variance.square() / nu, n)
    root = ratio.sign() * ratio.abs() ** (1 / 3)
    z = (root - 1 + 2 / (9 * nu)) / (2 / (9 * nu)).sqrt()
    return torch.where((variance == 0) & (signal == 0), 0.0, z)


def _effective_dimension(variance: Tensor, squared_covariance: Tensor, n: int) -> Tensor:
    square = variance.square()
    possible = squared_covariance.clamp_min(0).maximum(square / (n - 1)).minimum(square)
    return torch.where(square > 0, square / possible, 1.0)


def _standardised(signal: Tensor, squared_covariance: Tensor, n: int) -> Tensor:
    spread = (2 * squared_covariance / (n * (n - 1))).sqrt()
    return torch.where(signal == 0, 0.0, signal / spread)


def flatten_gradients(gradients: Mapping[str, Tensor]) -> Tensor:
    """``{name: [N, *shape]}`` to ``[N, P]`` in float64."""
    return torch.cat([_rows(gradient) for gradient in gradients.values()], dim=1)


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
    mean_a, mean_b = flatten_gradients(a).mean(0), flatten_gradients(b).mean(0)
    return torch.nn.functional.cosine_similarity(mean_a, mean_b, dim=0)


def _variance_and_signal(trace: Tensor, total: Tensor, n: int) -> tuple[Tensor, Tensor]:
    return (trace - total / n) / (n - 1), (total - trace) / (n * (n - 1))


def _jackknife(
    gram: Tensor, variance: Tensor, signal: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """95 % intervals: of the variance on its logarithm, and of the signal."""
    n = gram.shape[0]
    own = gram.diagonal()
    variances, signals = _variance_and_signal(
        gram.trace() - own, gram.sum() - 2 * gram.sum(1) + own, n - 1
    )
    if not bool((variances > 0).all()):
        # All trajectories agree but for at most one: the logarithm has no jackknife.
        low, high = torch.zeros_like(variance), torch.maximum(variance, variances.max())
    else:
        half = NORMAL_95 * math.sqrt(n - 1) * variances.log().std(unbiased=False)
        low, high = variance * (-half).exp(), variance * half.exp()
    half_signal = NORMAL_95 * math.sqrt(n - 1) * signals.std(unbiased=False)
    return low, high, signal - half_signal, signal + half_signal


def _parameter_variance(flat: Tensor, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    sizes = [gradient[0].numel() for gradient in gradients.values()]
    parts = torch.split(entry_variances(flat), sizes)
    return {name: part.sum() for name, part in zip(gradients, parts, strict=True)}


def _largest_share(flat: Tensor) -> Tensor:
    squares = (flat - flat.mean(0)).square().sum(1)
    return squares.max() / squares.sum().clamp_min(torch.finfo(flat.dtype).tiny)


def _squared_covariance(gram: Tensor, variance: Tensor) -> Tensor:
    n = gram.shape[0]
    centred = gram - gram.mean(0, keepdim=True) - gram.mean(1, keepdim=True) + gram.mean()
    plug_in = centred.square().sum() / (n - 1) ** 2
    return (n - 1) ** 2 / ((n - 2) * (n + 1)) * (plug_in - variance.square() / (n - 1))
