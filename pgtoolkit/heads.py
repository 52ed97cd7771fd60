"""Heads: the last layers of a policy, from a network's features to a distribution over actions.

Each head is one family of distributions. :class:`pgtoolkit.head_policy.HeadPolicy` makes a policy
of any; a new family needs a head and no more.
"""

from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgtoolkit.beta import Beta
from pgtoolkit.distribution import Distribution
from pgtoolkit.full_gaussian import FullGaussian
from pgtoolkit.mixture import GaussianMixture
from pgtoolkit.networks import Std, linear, make_std
from pgtoolkit.squashed import Squashed
from pgtoolkit.standard_noise import draw_gumbel, draw_normal
from pgtoolkit.unsquashed import Unsquashed

OUTPUT_GAIN = 0.01
"""Of a head's weights at first: the distribution then hardly depends on the observation."""


class Head(nn.Module, ABC):
    """Features ``[..., F]`` in, a distribution with batch ``[...]`` out.

    It calls its layers on ``[..., N, features]`` only, so that the gradient of each of the ``N``
    trajectories can be recorded.
    """

    noise_size: int
    """Entries of the standard noise of one action."""
    action_size: int
    """Entries of one pre-action."""

    @abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """The distribution at these features."""

    @abstractmethod
    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        """Standard noise ``[*batch, noise_size]`` on the generator's device."""


class UnsquashedHead(Head):
    """A head whose distribution has no bounds."""

    @abstractmethod
    def forward(self, features: Tensor) -> Unsquashed:
        """The distribution at these features."""


def normal_noise(size: int, batch: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal noise ``[*batch, size]`` on the generator's device."""
    return draw_normal(torch.empty(*batch, size, device=generator.device), generator, ())


@final
class SquashedHead(Head):
    """Another head's distribution, tanh-squashed to bounds.

    Args:
        head: whose distribution has none.
        low: ``[A]``.
        high: ``[A]``.
    """

    low: Tensor
    high: Tensor

    def __init__(self, head: UnsquashedHead, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.head, self.noise_size, self.action_size = head, head.noise_size, head.action_size
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, features: Tensor) -> Squashed:
        return Squashed(self.head(features), self.low, self.high)

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        return self.head.draw_noise(*batch, generator=generator)


@final
class FullGaussianHead(UnsquashedHead):
    """``L_ii = sigma_i``, ``L_ij = sigma_i r_ij`` below the diagonal; ``r`` starts near 0.

    Mean and ``r`` are linear in the features; sigma is as ``std`` says.

    Args:
        num_features: ``F``.
        size: ``A``.
        std: of the scale ``sigma``.
        log_std_init: where its logarithm starts.
        generator: for the initial weights.
    """

    def __init__(
        self,
        num_features: int,
        size: int,
        *,
        std: Std,
        log_std_init: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.noise_size = self.action_size = size
        below = size * (size - 1) // 2
        self.output = linear(num_features, size + below, OUTPUT_GAIN, generator)
        self.std = make_std(std, num_features, size, log_std_init, generator)
        # Where each of [1, 0, r_1, r_2, ...] goes in the matrix.
        place = torch.eye(size, dtype=torch.long).logical_not().long()
        rows, columns = torch.tril_indices(size, size, -1)
        place[rows, columns] = torch.arange(below) + 2
        self.register_buffer("place", place.flatten(), persistent=False)

    place: Tensor

    def forward(self, features: Tensor) -> FullGaussian:
        size = self.action_size
        output = self.output(features)
        mean, below = output.tensor_split([size], dim=-1)
        one = torch.ones_like(mean[..., :1])
        entries = torch.cat([one, torch.zeros_like(one), below], dim=-1)
        unit = entries[..., self.place].reshape(*entries.shape[:-1], size, size)
        return FullGaussian(mean, self.std(features).exp().unsqueeze(-1) * unit)

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        return normal_noise(self.noise_size, batch, generator)


@final
class MixtureHead(UnsquashedHead):
    """Weights and means linear in the features; the means start about one sigma apart.

    Components that are alike stay alike, so they must not start in one place.

    Args:
        num_features: ``F``.
        size: ``A``.
        std: of each component's standard deviations.
        log_std_init: where their logarithm starts.
        generator: for the initial weights and means.
        num_components: ``K``.
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
        self.noise_size, self.num_means = num_components + size, num_components * size
        outputs = num_components + self.num_means
        self.output = linear(num_features, outputs, OUTPUT_GAIN, generator)
        self.std = make_std(std, num_features, self.num_means, log_std_init, generator)
        with torch.no_grad():
            means = self.output.bias[num_components:].view(num_components, size)
            means.normal_(generator=generator).sub_(means.mean(0))
            means.mul_(torch.tensor(log_std_init).exp())

    def forward(self, features: Tensor) -> GaussianMixture:
        logits, means = self.output(features).tensor_split([self.num_components], dim=-1)
        shape = (*logits.shape, self.action_size)
        return GaussianMixture(logits, means.reshape(shape), self.std(features).reshape(shape))

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        like = torch.empty(*batch, self.num_components, device=generator.device)
        normal = normal_noise(self.action_size, batch, generator)
        return torch.cat([draw_gumbel(like, generator, ()), normal], dim=-1)


@final
class BetaHead(Head):
    """``alpha, beta = 1 + softplus(linear)``: one peak, a finite density (Chou et al. 2017).

    Args:
        num_features: ``F``.
        low: ``[A]``.
        high: ``[A]``.
        generator: for the initial weights.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, num_features: int, low: Tensor, high: Tensor, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.noise_size = self.action_size = len(low)
        self.output = linear(num_features, 2 * len(low), OUTPUT_GAIN, generator)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, features: Tensor) -> Beta:
        alpha, beta = (1 + F.softplus(self.output(features))).chunk(2, dim=-1)
        return Beta(alpha, beta, self.low, self.high)

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        return normal_noise(self.noise_size, batch, generator)
