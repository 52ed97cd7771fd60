"""A mixture of diagonal Gaussians, with an exact pathwise gradient also by its weights."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Unsquashed
from pgtoolkit.distributions.gaussian import normal_log_prob
from pgtoolkit.distributions.implicit import with_derivative
from pgtoolkit.distributions.noise import Noise


@final
@dataclasses.dataclass(frozen=True, eq=False)
class GaussianMixture(Unsquashed):
    """``sum_k w_k N(mean_k, diag(exp(log_std_k))^2)``, ``w = softmax(logits)``.

    Sampled as ``k = argmax(logits + Gumbel noise)``, ``a = mean_k + exp(log_std_k) eps``. That path
    jumps where ``k`` changes, so its own derivative is wrong. The derivative used instead is
    implicit, one dimension after the other (Figurnov et al. 2018, section 4): the conditional
    ``F_d(a_d | a_1 .. a_{d-1})`` of the mixture stays what it is when the parameters move,
    ``da_d = -(dF_d by parameters and a_1 .. a_{d-1}) / p_d(a_d | a_1 .. a_{d-1})``. It does not
    know ``k``. Between components that are far apart it is large, because there ``p`` is small.

    Differentiable once: a second derivative is refused. The noise counts as a constant.

    Args:
        logits: ``[..., K]`` of the weights, not necessarily normalised.
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
        """The sample; the graph leads to all three parameters."""
        gumbel, normal = noise.tensor_split([self.logits.shape[-1]], dim=-1)
        index = (self.logits + gumbel).argmax(-1)
        value = (
            self.component(self.mean, index) + self.component(self.log_std, index).exp() * normal
        )
        if not (torch.is_grad_enabled() and (value.requires_grad or self.logits.requires_grad)):
            return value
        return self._implicit(value.detach())

    def component(self, parameter: Tensor, index: Tensor) -> Tensor:
        """Row ``index`` ``[...]`` of a parameter ``[..., K, A]``: ``[..., A]``."""
        parameter = parameter.expand(*index.shape, *parameter.shape[-2:])
        at = index[..., None, None].expand(*index.shape, 1, parameter.shape[-1])
        return parameter.gather(-2, at).squeeze(-2)

    def _implicit(self, value: Tensor) -> Tensor:
        """``value`` ``[..., A]`` with its derivative, dimension by dimension."""
        log_weight = torch.log_softmax(self.logits, dim=-1)
        found: list[Tensor] = []
        for x, mean, log_std in zip(
            value.unbind(-1), self.mean.unbind(-1), self.log_std.unbind(-1), strict=True
        ):
            step = rank_step(x, torch.log_softmax(log_weight, dim=-1), mean, log_std)
            found.append(with_derivative(x, step))
            # The weights of the next dimension follow from this one, differentiably.
            log_weight = log_weight + normal_log_prob(found[-1].unsqueeze(-1), mean, log_std)
        return torch.stack(found, dim=-1)

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
        """The mean of the component of largest weight, which zero noise gives.

        Not the highest point of the density, which has no closed form.
        """
        return self.component(self.mean, self.logits.argmax(-1))


FARTHEST = 1000.0


def rank_step(x: Tensor, log_weight: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """A tensor whose derivative is ``-dF(x) / p(x)``, ``F`` of a mixture in one dimension.

    Of ``F`` and ``1 - F`` the smaller is taken, in logarithms: in a tail both ``dF`` and ``p`` may
    round to 0, and their ratio does not.

    Args:
        x: ``[...]`` the point, a constant.
        log_weight: ``[..., K]``, normalised.
        mean: ``[..., K]``.
        log_std: ``[..., K]``.
    """
    standardised = (x.unsqueeze(-1) - mean) * torch.exp(-log_std)
    with torch.no_grad():
        below = (log_weight.exp() * torch.special.ndtr(standardised)).sum(-1)
        sign = torch.where(below < 0.5, 1.0, -1.0).to(x)
        density = torch.logsumexp(log_weight + normal_log_prob(x.unsqueeze(-1), mean, log_std), -1)
    # A component that far away has no weight, and log_ndtr's derivative overflows there.
    tail = torch.special.log_ndtr((sign.unsqueeze(-1) * standardised).clamp_min(-FARTHEST))
    log_tail = torch.logsumexp(log_weight + tail, dim=-1)
    return -sign * torch.exp(log_tail.detach() - density) * log_tail
