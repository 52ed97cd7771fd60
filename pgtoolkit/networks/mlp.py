"""Multilayer perceptrons and standard-deviation modules, initialised from a given generator."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn

Activation = Literal["tanh", "elu", "silu", "relu"]

Std = Literal["state_independent", "state_dependent", "state_dependent_clamped"]
"""Whether a policy's standard deviation is a parameter or a function of the observation, and how
that function is limited."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
}


LOG_STD_CENTRE, LOG_STD_HALF_RANGE = -1.5, 3.5
"""A state-dependent ``log sigma`` is kept in [-5, 2] (Haarnoja et al. 2018)."""
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
"""A clamped ``log sigma`` is in this range, as in the first code of SAC and Stable-Baselines3."""


def linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights, scaled by ``gain``, and zero bias."""
    # skip_init: the layer's own initialisation would draw from the global random state.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def hidden_layers(
    inputs: int,
    hidden: tuple[int, ...],
    *,
    activation: Activation,
    layer_norm: bool,
    generator: torch.Generator,
    first_bias: float = 0.0,
) -> list[nn.Module]:
    """Linear (orthogonal, gain sqrt(2)), activation and, on request, LayerNorm for each size.

    Args:
        inputs: number of inputs.
        hidden: sizes of the layers.
        activation: activation after each linear layer.
        layer_norm: whether a LayerNorm follows each activation.
        generator: draws the initial weights.
        first_bias: half-width of the uniform distribution around 0 that the first layer's biases
            are drawn from; all other biases start at 0. With a LayerNorm and no first bias, the
            features of a small input do not shrink with it, and their slope has no bound.
    """
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [linear(inputs, size, math.sqrt(2), generator), ACTIVATIONS[activation]()]
        if layer_norm:
            layers.append(nn.LayerNorm(size))
        inputs = size
    if first_bias > 0 and layers:
        # Drawn last, so that the weights are those of a network without it.
        first = layers[0]
        assert isinstance(first, nn.Linear)
        nn.init.uniform_(first.bias, -first_bias, first_bias, generator=generator)
    return layers


def mlp(
    inputs: int,
    hidden: tuple[int, ...],
    outputs: int,
    *,
    activation: Activation,
    layer_norm: bool,
    output_gain: float,
    generator: torch.Generator,
    first_bias: float = 0.0,
) -> nn.Sequential:
    """:func:`hidden_layers` followed by a linear output layer with weights of ``output_gain``.

    ``hidden = ()`` gives the output layer alone.
    """
    layers = hidden_layers(
        inputs,
        hidden,
        activation=activation,
        layer_norm=layer_norm,
        generator=generator,
        first_bias=first_bias,
    )
    last = hidden[-1] if hidden else inputs
    return nn.Sequential(*layers, linear(last, outputs, output_gain, generator))


class StateIndependentStd(nn.Module):
    """``log sigma`` as one parameter per action dimension, the same in every state.

    It is a module, not a bare parameter, so that its gradient per trajectory can be recorded.
    """

    def __init__(self, size: int, init: float) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.full((size,), float(init)))

    def forward(self, like: Tensor) -> Tensor:
        """``log sigma`` ``[..., size]`` with the batch shape of ``like`` ``[..., any]``."""
        return self.log_std.expand(*like.shape[:-1], -1)


def limited_log_std(raw: Tensor) -> Tensor:
    """Maps any number to a ``log sigma`` in [-5, 2] by a tanh (Haarnoja et al. 2018)."""
    return LOG_STD_CENTRE + LOG_STD_HALF_RANGE * torch.tanh(raw)


def raw_log_std(log_std: float) -> float:
    """The inverse of :func:`limited_log_std`, kept finite near -5 and 2 and outside."""
    return math.atanh(min(max((log_std - LOG_STD_CENTRE) / LOG_STD_HALF_RANGE, -0.999), 0.999))


def clamped_log_std(raw: Tensor) -> Tensor:
    """The number itself, clamped to [-20, 2]; its slope is 0 outside."""
    return torch.clamp(raw, LOG_STD_MIN, LOG_STD_MAX)


@final
class LogStdLimit(NamedTuple):
    """How the raw output of a layer becomes a ``log sigma``."""

    limit: Callable[[Tensor], Tensor]
    inverse: Callable[[float], float]
    """The raw number whose ``log sigma`` is the given one, as far as there is one."""


LIMITS: dict[Std, LogStdLimit] = {
    "state_dependent": LogStdLimit(limited_log_std, raw_log_std),
    "state_dependent_clamped": LogStdLimit(clamped_log_std, float),
}


class StateDependentStd(nn.Module):
    """``log sigma`` as a limited linear function of features; initially near ``init``."""

    def __init__(
        self,
        num_features: int,
        size: int,
        init: float,
        limit: LogStdLimit,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.limit = limit
        self.raw = linear(num_features, size, 0.01, generator)
        nn.init.constant_(self.raw.bias, limit.inverse(init))

    def forward(self, features: Tensor) -> Tensor:
        return self.limit.limit(self.raw(features))


def make_std(
    std: Std, num_features: int, size: int, init: float, generator: torch.Generator
) -> StateIndependentStd | StateDependentStd:
    """A module from features ``[..., num_features]`` to ``log sigma`` ``[..., size]``."""
    if std == "state_independent":
        return StateIndependentStd(size, init)
    return StateDependentStd(num_features, size, init, LIMITS[std], generator)
