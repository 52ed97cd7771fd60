"""Discrete policies: one choice, several choices, or several yes-or-no decisions."""

from typing import final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pgtoolkit.distributions.discrete import Bernoulli, Categorical, MultiCategorical
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.networks.mlp import Activation, linear
from pgtoolkit.policies.head import OUTPUT_GAIN, Head, MakeHead
from pgtoolkit.policies.policy import Policy


@final
class CategoricalHead(Head):
    """Logits of one choice, linear in the features.

    Args:
        num_features: ``F``.
        num_choices: ``K``.
        generator: draws the initial weights.
    """

    def __init__(self, num_features: int, num_choices: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.noise, self.action_size = (Noise("gumbel", num_choices),), 1
        self.output = linear(num_features, num_choices, OUTPUT_GAIN, generator)

    def forward(self, features: Tensor) -> Categorical:
        return Categorical(self.output(features))


@final
class MultiCategoricalHead(Head):
    """Logits of independent choices, linear in the features.

    Args:
        num_features: ``F``.
        nvec: the number of alternatives of each choice.
        generator: draws the initial weights.
    """

    def __init__(
        self, num_features: int, nvec: tuple[int, ...], *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.nvec, self.noise, self.action_size = nvec, (Noise("gumbel", sum(nvec)),), len(nvec)
        self.output = linear(num_features, sum(nvec), OUTPUT_GAIN, generator)

    def forward(self, features: Tensor) -> MultiCategorical:
        return MultiCategorical(self.output(features), self.nvec)


@final
class BernoulliHead(Head):
    """Logits of independent yes-or-no decisions, linear in the features.

    Args:
        num_features: ``F``.
        size: the number of decisions.
        generator: draws the initial weights.
    """

    def __init__(self, num_features: int, size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.noise, self.action_size = (Noise("logistic", size),), size
        self.output = linear(num_features, size, OUTPUT_GAIN, generator)

    def forward(self, features: Tensor) -> Bernoulli:
        return Bernoulli(self.output(features))


def categorical_head(action_space: spaces.Space[np.int64]) -> MakeHead:
    """One choice of a ``Discrete`` space.

    Raises:
        RequestError: a space of another kind, or one that does not start at 0.
    """
    if not isinstance(action_space, spaces.Discrete) or action_space.start != 0:
        raise RequestError(
            "a categorical policy needs Discrete actions that start at 0, not "
            f"{single_line(action_space)}"
        )
    num_choices = int(action_space.n)
    return lambda num_features, generator: CategoricalHead(
        num_features, num_choices, generator=generator
    )


def CategoricalPolicy(
    observation_space: spaces.Space[np.ndarray],
    action_space: spaces.Space[np.int64],
    hidden: tuple[int, ...] = (64, 64),
    *,
    activation: Activation = "tanh",
    layer_norm: bool = False,
    normalize_observations: bool = False,
    generator: torch.Generator | None = None,
) -> Policy:
    """A softmax over a ``Discrete`` action space. It has the score-function loss only.

    Args: as of :func:`GaussianPolicy <pgtoolkit.policies.gaussian.GaussianPolicy>`, with a
    ``Discrete`` action space.

    Raises:
        RequestError: a space is of another kind.
    """
    return Policy(
        observation_space,
        categorical_head(action_space),
        hidden,
        activation=activation,
        layer_norm=layer_norm,
        normalize_observations=normalize_observations,
        generator=generator,
    )
