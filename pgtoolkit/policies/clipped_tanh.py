"""A head for policies that are deterministic up to exploration noise, as TD3's."""

from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.clipped import ClippedGaussian, unit_box
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.networks.mlp import Std, linear, make_std
from pgtoolkit.policies.head import OUTPUT_GAIN, Head


@final
class ClippedTanhHead(Head):
    """``a = clip(centre + scale * (tanh(m) + sigma * eps), low, high)``, noise outside the tanh.

    ``m`` is linear in the features. In units of the box the mean is in (-1, 1) and sigma is the
    standard deviation of the noise; the mode is ``centre + scale * tanh(m)``.

    Args:
        num_features: ``F``, the number of features.
        low: ``[A]`` lower action bounds, finite.
        high: ``[A]`` upper action bounds, finite.
        std: whether sigma depends on the observation.
        log_std_init: initial value of ``log sigma``.
        generator: draws the initial weights.
    """

    low: Tensor
    high: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        num_features: int,
        low: Tensor,
        high: Tensor,
        *,
        std: Std,
        log_std_init: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.noise, self.action_size = (Noise("normal", len(low)),), len(low)
        self.output = linear(num_features, len(low), OUTPUT_GAIN, generator)
        self.std = make_std(std, num_features, len(low), log_std_init, generator)
        centre, scale = unit_box(low, high)
        buffers = {"low": low, "high": high, "centre": centre, "scale": scale}
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, features: Tensor) -> ClippedGaussian:
        mean, log_std = torch.tanh(self.output(features)), self.std(features)
        return ClippedGaussian(mean, log_std, self.low, self.high, self.centre, self.scale)
