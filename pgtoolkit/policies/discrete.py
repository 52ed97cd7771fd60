"""Policy heads for discrete actions: one or several categorical variables, or binary ones."""

import dataclasses
from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pgtoolkit.distributions.discrete import Bernoulli, Categorical, MultiCategorical
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.networks.mlp import Activation, linear
from pgtoolkit.networks.parts import ACTION_MASK, ALLOWED, mask_part
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


DiscreteHead = CategoricalHead | MultiCategoricalHead | BernoulliHead

FORBIDDEN = -1e8
"""Logit of an action that is not allowed: its probability is 0 in float32, and p log p is 0, where
minus infinity would give NaN."""


@final
class MaskedHead(Head):
    """Another head's distribution, over those actions alone that are allowed.

    ``softmax(where(mask, logits, -1e8))``, in sampling and in updates, so that log-probabilities,
    entropies and divergences are those of the policy that acted (Huang and Ontanon 2022). Where
    the mask allows no action, all have equal probability. An entry for a binary variable says
    whether it may be 1.

    Args:
        head: of one or several variables, on features without the mask.
        mask_size: ``K``, the number of entries of the mask.

    Raises:
        RequestError: the number of actions is another one than that of the mask's entries.
    """

    def __init__(self, head: DiscreteHead, mask_size: int) -> None:
        super().__init__()
        num_logits = sum(part.size for part in head.noise)
        if num_logits != mask_size:
            raise RequestError(
                f"the observation's part {ACTION_MASK!r} has {mask_size} entries, and there are "
                f"{num_logits} actions: give it one entry an action, 1 where it is allowed"
            )
        self.head, self.noise, self.action_size = head, head.noise, head.action_size
        self.mask_size = mask_size

    def forward(self, features: Tensor) -> Categorical | MultiCategorical | Bernoulli:
        own, mask = features[..., : -self.mask_size], features[..., -self.mask_size :]
        distribution = self.head.forward(own)
        logits = torch.where(mask > ALLOWED, distribution.logits, FORBIDDEN)
        return dataclasses.replace(distribution, logits=logits)


def masked(make_head: MakeHead, observation_space: spaces.Space[Any]) -> MakeHead:
    """Makes the head of a policy that follows the observation's action mask, if there is one."""
    mask = mask_part(observation_space)
    if mask is None:
        return make_head

    def make(num_features: int, generator: torch.Generator) -> Head:
        head = make_head(num_features, generator)
        if isinstance(head, DiscreteHead):
            return MaskedHead(head, mask.size)
        return head

    return make


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
        masked(categorical_head(action_space), observation_space),
        hidden,
        activation=activation,
        layer_norm=layer_norm,
        normalize_observations=normalize_observations,
        generator=generator,
    )
