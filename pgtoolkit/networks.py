"""Networks, initialised from an explicit generator."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["tanh", "elu", "silu", "relu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
}


def linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights times ``gain`` and zero bias."""
    # skip_init: the layer's own initialisation would draw from the global random state.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(
    inputs: int,
    hidden: tuple[int, ...],
    outputs: int,
    *,
    activation: Activation,
    layer_norm: bool,
    output_gain: float,
    generator: torch.Generator,
) -> nn.Sequential:
    """Linear, activation and optionally LayerNorm for each hidden size, then a linear output.

    Orthogonal weights: gain sqrt(2) within, ``output_gain`` at the end. ``hidden = ()`` is linear.
    """
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [linear(inputs, size, math.sqrt(2), generator), ACTIVATIONS[activation]()]
        if layer_norm:
            layers.append(nn.LayerNorm(size))
        inputs = size
    return nn.Sequential(*layers, linear(inputs, outputs, output_gain, generator))


class StateIndependentStd(nn.Module):
    """``log sigma``, one parameter per action dimension, the same in every state.

    A module and not a bare parameter, so that its gradient per trajectory can be recorded.
    """

    def __init__(self, size: int, init: float) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.full((size,), float(init)))

    def forward(self, like: Tensor) -> Tensor:
        return self.log_std.expand_as(like)
