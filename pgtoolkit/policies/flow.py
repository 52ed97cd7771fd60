"""A normalising flow as a policy's head."""

import functools
from typing import final

import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform, Transform

from pgtoolkit.distributions.coupling import AffineCoupling
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.distributions.transformed import Transformed
from pgtoolkit.networks.mlp import Activation, Std, linear, make_std, mlp
from pgtoolkit.policies.head import OUTPUT_GAIN, UnsquashedHead

LOG_SCALE_LIMIT = 2.0
"""Of one coupling: a stretch by more than e^2 would make its inverse lose digits."""


@final
class CouplingNetwork(nn.Module):
    """The entries that stay and the features to shift and log-scale of the others.

    Args:
        num_features: ``F``.
        num_kept: entries that stay.
        num_moved: entries that change.
        hidden: hidden layers.
        activation: of the hidden layers.
        generator: for the initial weights.
    """

    def __init__(
        self,
        num_features: int,
        num_kept: int,
        num_moved: int,
        hidden: tuple[int, ...],
        *,
        activation: Activation,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.network = mlp(
            num_kept + num_features,
            hidden,
            2 * num_moved,
            activation=activation,
            layer_norm=False,
            output_gain=OUTPUT_GAIN,
            generator=generator,
        )

    def forward(self, features: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        features = features.expand(*kept.shape[:-1], features.shape[-1])
        shift, raw = self.network(torch.cat([kept, features], dim=-1)).chunk(2, dim=-1)
        return shift, LOG_SCALE_LIMIT * torch.tanh(raw / LOG_SCALE_LIMIT)


@final
class FlowHead(UnsquashedHead):
    """Standard normal noise, affine couplings with alternating masks, then ``mean + sigma x``.

    Couplings (Dinh et al. 2017) are conditioned on the features and start near the identity. With
    one action dimension there is nothing to couple, and it is a Gaussian.

    Args:
        num_features: ``F``.
        size: ``A``.
        activation: of the couplings' networks.
        std: of the last, affine map.
        log_std_init: where its logarithm starts.
        generator: for the initial weights.
        num_couplings: in the chain, if there is more than one dimension.
        hidden: hidden layers of each coupling's network.
    """

    def __init__(
        self,
        num_features: int,
        size: int,
        *,
        activation: Activation,
        std: Std,
        log_std_init: float,
        generator: torch.Generator,
        num_couplings: int = 4,
        hidden: tuple[int, ...] = (32,),
    ) -> None:
        super().__init__()
        self.noise, self.action_size = (Noise("normal", size),), size
        self.mean = linear(num_features, size, OUTPUT_GAIN, generator)
        self.std = make_std(std, num_features, size, log_std_init, generator)
        # Each mask keeps what the one before it moved.
        self.masks = [
            tuple((i + j) % 2 == 0 for i in range(size))
            for j in range(num_couplings if size > 1 else 0)
        ]
        self.conditioners = nn.ModuleList(
            CouplingNetwork(
                num_features,
                sum(mask),
                size - sum(mask),
                hidden,
                activation=activation,
                generator=generator,
            )
            for mask in self.masks
        )

    def forward(self, features: Tensor) -> Transformed:
        mean, std = self.mean(features), self.std(features).exp()
        chain: list[Transform] = [
            AffineCoupling(mask, functools.partial(conditioner, features))
            for mask, conditioner in zip(self.masks, self.conditioners, strict=True)
        ]
        base = DiagonalGaussian(torch.zeros_like(mean), torch.zeros_like(mean))
        return Transformed(base, (*chain, AffineTransform(mean, std, event_dim=1)))
