"""The beta distribution between action bounds, with an accurate pathwise gradient."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution, Support, nonzero
from pgtoolkit.distributions.beta_quantile import Array, beta_quantile, beta_quantile_derivatives
from pgtoolkit.distributions.implicit import implicit_sample
from pgtoolkit.distributions.noise import Noise


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Beta(Distribution):
    """``a = low + (high - low) x``, ``x ~ Beta(alpha, beta)`` in each dimension.

    The actions are bounded without squashing. The density is finite at the bounds if both
    parameters are at least 1 (Chou et al. 2017). The pre-action is ``x``, the quantile of
    ``Phi(eps)`` for standard normal ``eps``; SciPy computes it in float64 on the CPU, whatever the
    device of the tensors. Its derivative is implicit, ``dx/dalpha = -(dF/dalpha) / p(x)`` (Figurnov
    et al. 2018), with a relative error of about 1e-11. A second derivative is refused, and the
    noise counts as a constant.

    ``x`` is kept away from 0 and 1 by the spacing of its dtype there. If a parameter is far below
    1, much of the probability is closer to a bound than that: in float32 and with ``beta = 0.1``,
    19 % are rounded to the number next to 1. For such a sample only :meth:`sample_with_log_prob`
    gives the right density.

    Args:
        alpha: ``[..., A]``, positive.
        beta: ``[..., A]``, positive.
        low: ``[A]`` lower action bounds.
        high: ``[A]`` upper action bounds.
    """

    alpha: Tensor
    beta: Tensor
    low: Tensor
    high: Tensor

    @property
    def noise(self) -> tuple[Noise, ...]:
        return (Noise("normal", self.alpha.shape[-1]),)

    @property
    def parameter(self) -> Tensor:
        return self.alpha

    @property
    def width(self) -> Tensor:
        """``[A]`` the range of each entry; 1 where the bounds are equal, for there is no density.

        Such an entry is a constant, and its density is that of ``x``.
        """
        return nonzero(self.high - self.low)

    def pre_action(self, noise: Tensor) -> Tensor:
        """``x`` in (0, 1); its graph leads to both parameters."""
        z, a, b = self._float64(noise)
        x, y = beta_quantile(z, a, b)
        value = self._inside(torch.from_numpy(x).to(self.alpha))
        if not (torch.is_grad_enabled() and (self.alpha.requires_grad or self.beta.requires_grad)):
            return value
        derivatives = beta_quantile_derivatives(z, a, b, x, y)
        by_alpha, by_beta = (torch.from_numpy(d).to(value) for d in derivatives)
        return implicit_sample(value, by_alpha * self.alpha + by_beta * self.beta)

    def _inside(self, x: Tensor) -> Tensor:
        """Clamps ``x`` to the open interval (0, 1), where the density is finite."""
        info = torch.finfo(x.dtype)
        return x.clamp(info.tiny, 1 - info.eps / 2)

    def squash(self, pre_action: Tensor) -> Tensor:
        # Rounding can pass a bound by a unit in the last place; the clamp undoes only that.
        action = self.low + (self.high - self.low) * pre_action
        return torch.clamp(action, self.low, self.high)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        """``sum_i ((alpha_i - 1) log x_i + (beta_i - 1) log(1 - x_i) - log B - log range_i)``.

        Computed in float64, because the terms cancel where the parameters are large.
        """
        alpha, beta, x = self.alpha.double(), self.beta.double(), pre_action.double()
        log_density = (alpha - 1) * x.log() + (beta - 1) * torch.log1p(-x) - log_beta(alpha, beta)
        return (log_density - self.width.double().log()).sum(-1).to(pre_action.dtype)

    def sample_with_log_prob(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """A sample without a graph, and its log density, whose graph leads to the parameters.

        The density is that of the quantile in float64, before it is rounded and clamped, so the
        score function is unbiased also if a parameter is far below 1.
        """
        x, y = self._quantile(self.resolve_noise(noise, generator))
        # The smaller of the two has all its digits.
        log_x = torch.where(x < y, x.log(), torch.log1p(-y))
        log_y = torch.where(x < y, torch.log1p(-x), y.log())
        alpha, beta = self.alpha.double(), self.beta.double()
        log_density = (alpha - 1) * log_x + (beta - 1) * log_y - log_beta(alpha, beta)
        log_prob = (log_density - self.width.double().log()).sum(-1)
        action = self.squash(self._inside(x.to(self.alpha.dtype))).detach()
        return action, log_prob.to(self.alpha.dtype)

    def _quantile(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` and ``1 - x`` in float64, without a graph."""
        x, y = beta_quantile(*self._float64(noise))
        device = self.alpha.device
        return torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

    def _float64(self, noise: Tensor) -> tuple[Array, Array, Array]:
        """Noise and both parameters, broadcast, as float64 arrays."""
        parameters = torch.broadcast_tensors(noise, self.alpha, self.beta)  # type: ignore[no-untyped-call]
        z, a, b = (t.detach().to("cpu", torch.float64).numpy() for t in parameters)
        return z, a, b

    def log_prob(self, action: Tensor) -> Tensor:
        """``log p(action)`` ``[...]``, inexact at the bounds because the scaling is inverted.

        Where both bounds are equal, ``x`` counts as 1/2. Prefer :meth:`log_prob_of_pre_action`
        where the pre-action is at hand.
        """
        x = torch.where(self.high > self.low, (action - self.low) / self.width, 0.5)
        return self.log_prob_of_pre_action(self._inside(x))

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``log B(a, b) - (a-1) psi(a) - (b-1) psi(b) + (a+b-2) psi(a+b) + log range``, summed.

        It is exact and needs no noise.
        """
        alpha, beta = self.alpha.double(), self.beta.double()
        own = (alpha - 1) * torch.digamma(alpha) + (beta - 1) * torch.digamma(beta)
        both = (alpha + beta - 2) * torch.digamma(alpha + beta)
        log_range = self.width.double().log()
        return (log_beta(alpha, beta) - own + both + log_range).sum(-1).to(self.alpha.dtype)

    @property
    def support(self) -> Support:
        return Support(self.low, self.high)

    def closed_form_kl_divergence(self, other: Distribution) -> Tensor | None:
        """Exact for another beta distribution on the same bounds.

        ``log B(a_q, b_q) - log B(a_p, b_p) + (a_p - a_q) psi(a_p) + (b_p - b_q) psi(b_p)
        + (a_q - a_p + b_q - b_p) psi(a_p + b_p)``, summed over the dimensions, in float64.
        """
        if not isinstance(other, Beta) or not self.support.equals(other.support):
            return None
        alpha, beta = self.alpha.double(), self.beta.double()
        other_alpha, other_beta = other.alpha.double(), other.beta.double()
        alpha_change, beta_change = alpha - other_alpha, beta - other_beta
        constant = log_beta(other_alpha, other_beta) - log_beta(alpha, beta)
        own = alpha_change * torch.digamma(alpha) + beta_change * torch.digamma(beta)
        both = (alpha_change + beta_change) * torch.digamma(alpha + beta)
        return (constant + own - both).sum(-1).to(self.alpha.dtype)

    @property
    def mode(self) -> Tensor:
        """The median, which zero noise gives; not the maximum of the density."""
        return self.squash(self.pre_action(torch.zeros_like(self.alpha)))

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.squash(self.pre_action(self.resolve_noise(noise, generator)))


def log_beta(alpha: Tensor, beta: Tensor) -> Tensor:
    """``log B(alpha, beta)``, the logarithm of the density's normalising constant."""
    return torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
