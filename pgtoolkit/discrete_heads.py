"""Heads for several choices or switches at once."""

from typing import final

import torch
from torch import Tensor

from pgtoolkit.discrete import Bernoulli, MultiCategorical
from pgtoolkit.heads import OUTPUT_GAIN, Head
from pgtoolkit.networks import linear
from pgtoolkit.standard_noise import draw_gumbel, draw_logistic


@final
class MultiCategoricalHead(Head):
    """Logits of independent choices, linear in the features.

    Args:
        num_features: ``F``.
        nvec: how many there are to choose from, for each choice.
        generator: for the initial weights.
    """

    def __init__(
        self, num_features: int, nvec: tuple[int, ...], *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.nvec, self.noise_size, self.action_size = nvec, sum(nvec), len(nvec)
        self.output = linear(num_features, self.noise_size, OUTPUT_GAIN, generator)

    def forward(self, features: Tensor) -> MultiCategorical:
        return MultiCategorical(self.output(features), self.nvec)

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        like = torch.empty(*batch, self.noise_size, device=generator.device)
        return draw_gumbel(like, generator, ())


@final
class BernoulliHead(Head):
    """Logits of independent switches, linear in the features.

    Args:
        num_features: ``F``.
        size: switches.
        generator: for the initial weights.
    """

    def __init__(self, num_features: int, size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.noise_size = self.action_size = size
        self.output = linear(num_features, size, OUTPUT_GAIN, generator)

    def forward(self, features: Tensor) -> Bernoulli:
        return Bernoulli(self.output(features))

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        like = torch.empty(*batch, self.noise_size, device=generator.device)
        return draw_logistic(like, generator, ())
