"""Policy heads for discrete actions: one or several categorical variables, or binary ones."""

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
    """One categorical variable, its logits linear in the features.

    Args:
        num_features: ``F``, the number of features.
        num_categories: ``K``, the number of categories.
        generator: draws the initial weights.
    """

    def __init__(
        self, num_features: int, num_categories: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.noise, self.action_size = (Noise("gumbel", num_categories),), 1
        self.output = linear(num_features, num_categories, OUTPUT_GAIN, generator)

    def forward(self, features: Tensor) -> Categorical:
        return Categorical(self.output(features))


@final
class MultiCategoricalHead(Head):
    """Independent categorical variables, their logits linear in the features.

    Args:
        num_features: ``F``, the number of features.
        nvec: the number of categories of each variable.
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
    """Independent binary variables, their logits linear in the features.

    Args:
        num_features: ``F``, the number of features.
        size: the number of variables.
        generator: draws the initial weights.
    """

    def __init__(self, num_features: int, size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.noise, self.action_size = (Noise("logistic", size),), size
        self.output = linear(num_features, size, OUTPUT_GAIN, generator)

    def forward(self, features: Tensor) -> Bernoulli:
        return Bernoulli(self.output(features))


def categorical_head(action_space: spaces.Space[np.int64]) -> MakeHead:
    """Makes a :class:`CategoricalHead` for a ``Discrete`` action space.

    Raises:
        RequestError: a space of another kind, or one that does not start at 0.
    """
    if not isinstance(action_space, spaces.Discrete) or action_space.start != 0:
        raise RequestError(
            "a categorical policy needs Discrete actions that start at 0, not "
            f"{single_line(action_space)}"
        )
    num_categories = int(action_space.n)
    return lambda num_features, generator: CategoricalHead(
        num_features, num_categories, generator=generator
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
    """A softmax over a ``Discrete`` action space; it has no pathwise gradient.

    Args:
        observation_space: a one-dimensional ``Box``, or images, which two convolutions read.
        action_space: a ``Discrete`` space that starts at 0.
        hidden: sizes of the hidden layers; ``()`` is a linear policy.
        activation: activation of the hidden layers.
        layer_norm: whether a LayerNorm follows each hidden activation.
        normalize_observations: whether observations are normalised by their running mean and
            variance.
        generator: draws the initial weights; None means a new generator with seed 0.

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
