"""Heads of Gaussians whose noise is added outside of any squashing, and clipped to the bounds."""

import abc
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.clipped import ClippedGaussian, unit_box
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.networks.mlp import Std, linear, make_std
from pgtoolkit.policies.head import OUTPUT_GAIN, Head


class ClippedHead(Head):
    """``a = clip(centre + scale * (mean + sigma * eps), low, high)``, a subclass gives the mean.

    ``centre`` and ``scale`` are those of
    :func:`unit_box <pgtoolkit.distributions.clipped.unit_box>`: a mean of 0 is the middle of a
    bounded entry, and 1 is half of its width.

    Args:
        num_features: ``F``, the number of features.
        low: ``[A]`` lower action bounds; minus infinity for none.
        high: ``[A]`` upper action bounds; infinity for none.
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

    @abc.abstractmethod
    def mean(self, features: Tensor) -> Tensor:
        """The mean before the clip, in units of the box ``[..., A]``."""

    def forward(self, features: Tensor) -> ClippedGaussian:
        mean, log_std = self.mean(features), self.std(features)
        return ClippedGaussian(mean, log_std, self.low, self.high, self.centre, self.scale)


@final
class ClippedGaussianHead(ClippedHead):
    """A diagonal Gaussian in units of the box, whose mean is linear in the features."""

    def mean(self, features: Tensor) -> Tensor:
        mean: Tensor = self.output(features)
        return mean


@final
class ClippedTanhHead(ClippedHead):
    """A mean of ``tanh(m)``, ``m`` linear in the features, for finite bounds, as TD3's policy.

    The mode ``centre + scale * tanh(m)`` is inside the box, and the noise is outside of the tanh.
    """

    def mean(self, features: Tensor) -> Tensor:
        return torch.tanh(self.output(features))
