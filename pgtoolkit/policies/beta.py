"""Policy head: a beta distribution between the action bounds."""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from pgtoolkit.distributions.beta import Beta
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.networks.mlp import linear
from pgtoolkit.policies.head import OUTPUT_GAIN, Head


@final
class BetaHead(Head):
    """``alpha, beta = 1 + softplus(linear(features))`` (Chou et al. 2017).

    With both parameters above 1 the density has one peak and is finite.

    Args:
        num_features: ``F``, the number of features.
        low: ``[A]`` lower action bounds.
        high: ``[A]`` upper action bounds.
        generator: draws the initial weights.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, num_features: int, low: Tensor, high: Tensor, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.noise, self.action_size = (Noise("normal", len(low)),), len(low)
        self.output = linear(num_features, 2 * len(low), OUTPUT_GAIN, generator)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, features: Tensor) -> Beta:
        alpha, beta = (1 + F.softplus(self.output(features))).chunk(2, dim=-1)
        return Beta(alpha, beta, self.low, self.high)
