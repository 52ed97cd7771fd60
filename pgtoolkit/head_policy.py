"""A policy of three parts: observation normaliser, hidden layers, and a head."""

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.distribution import Distribution
from pgtoolkit.encoder import make_encoder, make_normalizer
from pgtoolkit.heads import Head
from pgtoolkit.networks import Activation, hidden_layers
from pgtoolkit.policy import Policy

MakeHead = Callable[[int, torch.Generator], Head]
"""From the number of features, and a generator for the initial weights."""


@final
class HeadPolicy(Policy):
    """``head(network(normalizer(obs)))``, with any :class:`~pgtoolkit.heads.Head`.

    Args:
        observation_space: a one-dimensional ``Box``, or images, which two convolutions read.
        make_head: makes the head; it knows the action space.
        hidden: sizes of the hidden layers; with ``()`` the head sees the observation.
        activation: of the hidden layers.
        layer_norm: LayerNorm after each hidden activation.
        normalize_observations: with a running normaliser that only ``normalizer.update`` changes.
        generator: for the initial weights; None is a fresh one seeded with 0.

    Raises:
        RequestError: an observation space of another kind.
    """

    def __init__(
        self,
        observation_space: spaces.Space[np.ndarray],
        make_head: MakeHead,
        hidden: tuple[int, ...] = (64, 64),
        *,
        activation: Activation = "tanh",
        layer_norm: bool = False,
        normalize_observations: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        generator = generator or torch.Generator().manual_seed(0)
        self.normalizer = make_normalizer(observation_space, normalize_observations)
        encoder, num_features = make_encoder(observation_space, generator)
        layers = hidden_layers(
            num_features, hidden, activation=activation, layer_norm=layer_norm, generator=generator
        )
        self.network = nn.Sequential(*encoder, *layers)
        self.head = make_head(hidden[-1] if hidden else num_features, generator)
        self.noise_size, self.action_size = self.head.noise_size, self.head.action_size

    def forward(self, obs: Tensor) -> Distribution:
        distribution: Distribution = self.head(self.network(self.normalizer(obs)))
        return distribution

    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        return self.head.draw_noise(*batch, generator=generator)

    def pathwise_action(self, obs: Tensor, noise: Tensor) -> Tensor:
        return self(obs).rsample(noise)
