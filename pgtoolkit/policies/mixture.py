"""Policy head: a mixture of diagonal Gaussians."""

from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.networks.mlp import Std, linear, make_std
from pgtoolkit.policies.head import OUTPUT_GAIN, UnsquashedHead


@final
class MixtureHead(UnsquashedHead):
    """A mixture whose weights' logits and means are linear in the features.

    The initial means differ by about one sigma: equal components would get equal gradients and stay
    equal.

    Args:
        num_features: ``F``, the number of features.
        size: ``A``, the number of action dimensions.
        std: whether the components' standard deviations depend on the observation.
        log_std_init: initial logarithm of the standard deviations.
        generator: draws the initial weights and means.
        num_components: ``K``, the number of components.
    """

    def __init__(
        self,
        num_features: int,
        size: int,
        *,
        std: Std,
        log_std_init: float,
        generator: torch.Generator,
        num_components: int = 4,
    ) -> None:
        super().__init__()
        self.num_components, self.action_size = num_components, size
        self.noise = (Noise("gumbel", num_components), Noise("normal", size))
        num_means = num_components * size
        self.output = linear(num_features, num_components + num_means, OUTPUT_GAIN, generator)
        self.std = make_std(std, num_features, num_means, log_std_init, generator)
        with torch.no_grad():
            means = self.output.bias[num_components:].view(num_components, size)
            means.normal_(generator=generator).sub_(means.mean(0))
            means.mul_(torch.tensor(log_std_init).exp())

    def forward(self, features: Tensor) -> GaussianMixture:
        logits, means = self.output(features).tensor_split([self.num_components], dim=-1)
        shape = (*logits.shape, self.action_size)
        return GaussianMixture(logits, means.reshape(shape), self.std(features).reshape(shape))
