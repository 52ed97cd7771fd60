"""Policy head: a normalising flow of affine couplings."""

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
"""Largest absolute log-scale of one coupling. With a larger scale than e^2 its inverse would lose
digits."""


@final
class CouplingNetwork(nn.Module):
    """Shift and log-scale of a coupling, from the features and the entries left unchanged.

    Args:
        num_features: ``F``, the number of features.
        num_unchanged: number of entries that the coupling leaves unchanged.
        num_changed: number of entries that it changes.
        hidden: sizes of the hidden layers.
        activation: activation of the hidden layers.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        num_features: int,
        num_unchanged: int,
        num_changed: int,
        hidden: tuple[int, ...],
        *,
        activation: Activation,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.network = mlp(
            num_unchanged + num_features,
            hidden,
            2 * num_changed,
            activation=activation,
            layer_norm=False,
            output_gain=OUTPUT_GAIN,
            generator=generator,
        )

    def forward(self, features: Tensor, unchanged: Tensor) -> tuple[Tensor, Tensor]:
        features = features.expand(*unchanged.shape[:-1], features.shape[-1])
        shift, raw = self.network(torch.cat([unchanged, features], dim=-1)).chunk(2, dim=-1)
        return shift, LOG_SCALE_LIMIT * torch.tanh(raw / LOG_SCALE_LIMIT)


@final
class FlowHead(UnsquashedHead):
    """Standard normal noise, affine couplings with alternating masks, then ``mean + sigma x``.

    The couplings (Dinh et al. 2017) are conditioned on the features and start near the identity.
    With one action dimension there are none, and the distribution is a Gaussian.

    Args:
        num_features: ``F``, the number of features.
        size: ``A``, the number of action dimensions.
        activation: activation of the couplings' networks.
        std: whether ``sigma`` depends on the observation.
        log_std_init: initial value of ``log sigma``.
        generator: draws the initial weights.
        num_couplings: number of couplings if there is more than one dimension.
        hidden: sizes of the hidden layers of each coupling's network.
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
        # Each coupling changes the entries that the one before it left unchanged.
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
