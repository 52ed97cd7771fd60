"""Gaussian policy heads: independent or correlated; tanh-squashed or unbounded."""

from typing import final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.distributions.gaussian import DiagonalGaussian, FullGaussian
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.distributions.squashed import TanhGaussian
from pgtoolkit.networks.bounds import tanh_bounds
from pgtoolkit.networks.mlp import (
    LIMITS,
    Activation,
    StateIndependentStd,
    Std,
    linear,
    make_std,
)
from pgtoolkit.networks.spaces import box_size
from pgtoolkit.policies.head import OUTPUT_GAIN, Head, MakeHead, UnsquashedHead
from pgtoolkit.policies.policy import Policy


@final
class GaussianHead(Head):
    """A diagonal Gaussian, tanh-squashed to the action bounds if there are bounds.

    The mean is linear in the features. ``log sigma`` is one parameter per dimension, or a second
    output of the same layer, limited as ``std`` says.

    Args:
        num_features: ``F``, the number of features.
        size: ``A``, the number of action dimensions.
        bounds: lower and upper action bounds, each ``[A]``; None for an unbounded action.
        std: whether sigma depends on the observation.
        log_std_init: initial value of ``log sigma``.
        generator: draws the initial weights.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        num_features: int,
        size: int,
        *,
        bounds: tuple[Tensor, Tensor] | None,
        std: Std,
        log_std_init: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.noise, self.action_size = (Noise("normal", size),), size
        self.bounded = bounds is not None
        if bounds is not None:
            self.register_buffer("low", bounds[0])
            self.register_buffer("high", bounds[1])
        outputs = size if std == "state_independent" else 2 * size
        self.output = linear(num_features, outputs, OUTPUT_GAIN, generator)
        self.std = StateIndependentStd(size, log_std_init) if std == "state_independent" else None
        self.limit = None if std == "state_independent" else LIMITS[std]
        if self.limit is not None:
            # With this bias the limited log sigma starts near its initial value everywhere.
            nn.init.constant_(self.output.bias[size:], self.limit.inverse(log_std_init))

    def forward(self, features: Tensor) -> DiagonalGaussian | TanhGaussian:
        output = self.output(features)
        if self.std is not None:
            mean, log_std = output, self.std(output)
        else:
            assert self.limit is not None, "a std is a module or a limited output"
            mean, raw = output.chunk(2, dim=-1)
            log_std = self.limit.limit(raw)
        if self.bounded:
            return TanhGaussian(mean, log_std, self.low, self.high)
        return DiagonalGaussian(mean, log_std)


@final
class FullGaussianHead(UnsquashedHead):
    """A Gaussian with covariance ``L L^T``: ``L_ii = sigma_i``, ``L_ij = sigma_i r_ij`` for i > j.

    The mean and ``r`` are linear in the features; ``r`` starts near 0.

    Args:
        num_features: ``F``, the number of features.
        size: ``A``, the number of action dimensions.
        std: whether ``sigma`` depends on the observation.
        log_std_init: initial value of ``log sigma``.
        generator: draws the initial weights.
    """

    entry_index: Tensor

    def __init__(
        self,
        num_features: int,
        size: int,
        *,
        std: Std,
        log_std_init: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.noise, self.action_size = (Noise("normal", size),), size
        below = size * (size - 1) // 2
        self.output = linear(num_features, size + below, OUTPUT_GAIN, generator)
        self.std = make_std(std, num_features, size, log_std_init, generator)
        # The index into [1, 0, r_1, r_2, ...] of each entry of the matrix L / sigma.
        entry_index = torch.eye(size, dtype=torch.long).logical_not().long()
        rows, columns = torch.tril_indices(size, size, -1)
        entry_index[rows, columns] = torch.arange(below) + 2
        self.register_buffer("entry_index", entry_index.flatten(), persistent=False)

    def forward(self, features: Tensor) -> FullGaussian:
        size = self.action_size
        output = self.output(features)
        mean, below = output.tensor_split([size], dim=-1)
        one = torch.ones_like(mean[..., :1])
        entries = torch.cat([one, torch.zeros_like(one), below], dim=-1)
        unit = entries[..., self.entry_index].reshape(*entries.shape[:-1], size, size)
        return FullGaussian(mean, self.std(features).exp().unsqueeze(-1) * unit)


def gaussian_head(
    action_space: spaces.Space[np.ndarray], *, std: Std, log_std_init: float
) -> MakeHead:
    """Makes a :class:`GaussianHead`, tanh-squashed if the box has bounds.

    Raises:
        RequestError: the action space is not a one-dimensional box, bounded everywhere or nowhere.
    """
    size = box_size("action", action_space)
    bounds = tanh_bounds(action_space)
    return lambda num_features, generator: GaussianHead(
        num_features,
        size,
        bounds=bounds,
        std=std,
        log_std_init=log_std_init,
        generator=generator,
    )


def GaussianPolicy(
    observation_space: spaces.Space[np.ndarray],
    action_space: spaces.Space[np.ndarray],
    hidden: tuple[int, ...] = (64, 64),
    *,
    activation: Activation = "tanh",
    layer_norm: bool = False,
    std: Std = "state_independent",
    log_std_init: float = 0.0,
    normalize_observations: bool = False,
    generator: torch.Generator | None = None,
) -> Policy:
    """A diagonal Gaussian policy over a ``Box``, tanh-squashed to its bounds if it has bounds.

    Args:
        observation_space: a one-dimensional ``Box``, or images, which two convolutions read.
        action_space: a one-dimensional ``Box``, bounded on all sides or on none.
        hidden: sizes of the hidden layers; ``()`` is a linear policy.
        activation: activation of the hidden layers.
        layer_norm: whether a LayerNorm follows each hidden activation.
        std: one ``log sigma`` per dimension, or a second output of the network.
        log_std_init: initial value of ``log sigma``.
        normalize_observations: whether observations are normalised by their running mean and
            variance.
        generator: draws the initial weights; None means a new generator with seed 0.

    Raises:
        RequestError: a space is of another kind.
    """
    return Policy(
        observation_space,
        gaussian_head(action_space, std=std, log_std_init=log_std_init),
        hidden,
        activation=activation,
        layer_norm=layer_norm,
        normalize_observations=normalize_observations,
        generator=generator,
    )
