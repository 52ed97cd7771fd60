"""A mixture of diagonal Gaussians with an exact pathwise gradient, also for its weights."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Unsquashed
from pgtoolkit.distributions.gaussian import normal_log_prob
from pgtoolkit.distributions.implicit import implicit_sample
from pgtoolkit.distributions.noise import Noise

MIN_STANDARDISED = -1000.0
"""Lowest argument of ``log_ndtr``, whose derivative overflows below. A component that is so many
standard deviations away has no weight."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class GaussianMixture(Unsquashed):
    """``sum_k w_k N(mean_k, diag(exp(log_std_k))^2)``, ``w = softmax(logits)``.

    Sampled as ``k = argmax(logits + Gumbel noise)``, ``a = mean_k + exp(log_std_k) eps``. This path
    jumps where ``k`` changes, so its own derivative is biased. The derivative used instead is
    implicit (Figurnov et al. 2018, section 4): the mixture's conditional distribution functions
    ``F_d(a_d | a_1 .. a_{d-1})`` keep their values when the parameters move, which gives, one
    dimension after the other,
    ``da_d = -(dF_d by parameters and a_1 .. a_{d-1}) / p_d(a_d | a_1 .. a_{d-1})``. It does not
    depend on ``k``. Between components that are far apart ``p`` is small and the derivative large.

    The sample can be differentiated once; a second derivative is refused. The noise counts as a
    constant.

    Args:
        logits: ``[..., K]``, unnormalised logarithms of the weights.
        mean: ``[..., K, A]``.
        log_std: ``[..., K, A]``.
    """

    logits: Tensor
    mean: Tensor
    log_std: Tensor

    @property
    def noise(self) -> tuple[Noise, ...]:
        return (Noise("gumbel", self.logits.shape[-1]), Noise("normal", self.mean.shape[-1]))

    @property
    def parameter(self) -> Tensor:
        return self.logits

    def pre_action(self, noise: Tensor) -> Tensor:
        """The sample ``[..., A]``; its graph leads to all three parameters."""
        gumbel, normal = noise.tensor_split([self.logits.shape[-1]], dim=-1)
        index = (self.logits + gumbel).argmax(-1)
        value = (
            self.component(self.mean, index) + self.component(self.log_std, index).exp() * normal
        )
        if not (torch.is_grad_enabled() and (value.requires_grad or self.logits.requires_grad)):
            return value
        return self._with_implicit_gradient(value.detach())

    def component(self, parameter: Tensor, index: Tensor) -> Tensor:
        """Row ``index`` ``[...]`` of a parameter ``[..., K, A]``: ``[..., A]``."""
        parameter = parameter.expand(*index.shape, *parameter.shape[-2:])
        at = index[..., None, None].expand(*index.shape, 1, parameter.shape[-1])
        return parameter.gather(-2, at).squeeze(-2)

    def _with_implicit_gradient(self, value: Tensor) -> Tensor:
        """``value`` ``[..., A]`` with its derivative by the parameters."""
        log_weight = torch.log_softmax(self.logits, dim=-1)
        entries: list[Tensor] = []
        for x, mean, log_std in zip(
            value.unbind(-1), self.mean.unbind(-1), self.log_std.unbind(-1), strict=True
        ):
            source = _derivative_source(x, torch.log_softmax(log_weight, dim=-1), mean, log_std)
            entries.append(implicit_sample(x, source))
            # Conditioning on this entry multiplies the components' weights by their densities.
            log_weight = log_weight + normal_log_prob(entries[-1].unsqueeze(-1), mean, log_std)
        return torch.stack(entries, dim=-1)

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        """``logsumexp_k (log w_k + log N(a; mean_k, std_k))`` ``[...]``."""
        log_p = normal_log_prob(pre_action.unsqueeze(-2), self.mean, self.log_std).sum(-1)
        return torch.logsumexp(torch.log_softmax(self.logits, dim=-1) + log_p, dim=-1)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``-log p(a)`` at one reparameterised ``a``: unbiased, differentiable.

        There is no closed form.
        """
        return -self.log_prob_of_pre_action(self.pre_action(self.resolve_noise(noise, generator)))

    @property
    def mode(self) -> Tensor:
        """The mean of the component with the largest weight, which zero noise gives.

        It is not the maximum of the density, which has no closed form.
        """
        return self.component(self.mean, self.logits.argmax(-1))


def _derivative_source(x: Tensor, log_weight: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """A tensor ``[...]`` with the derivative ``-dF(x) / p(x)`` of a one-dimensional mixture.

    It is computed from the logarithm of ``F`` or of ``1 - F``, whichever is smaller: in a tail both
    ``dF`` and ``p`` may round to 0, and the difference of their logarithms does not.

    Args:
        x: ``[...]`` the sample, a constant.
        log_weight: ``[..., K]``, normalised.
        mean: ``[..., K]``.
        log_std: ``[..., K]``.
    """
    standardised = (x.unsqueeze(-1) - mean) * torch.exp(-log_std)
    with torch.no_grad():
        below = (log_weight.exp() * torch.special.ndtr(standardised)).sum(-1)
        sign = torch.where(below < 0.5, 1.0, -1.0).to(x)
        log_density = torch.logsumexp(
            log_weight + normal_log_prob(x.unsqueeze(-1), mean, log_std), -1
        )
    tail = torch.special.log_ndtr((sign.unsqueeze(-1) * standardised).clamp_min(MIN_STANDARDISED))
    log_tail = torch.logsumexp(log_weight + tail, dim=-1)
    return -sign * torch.exp(log_tail.detach() - log_density) * log_tail
