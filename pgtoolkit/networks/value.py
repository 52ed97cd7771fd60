"""The learned value function: a baseline for one estimator, a terminal value for the other."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from pgtoolkit.networks.mlp import Activation, mlp


@final
class ValueFunction(nn.Module):
    """``V(obs)`` ``[...]`` from normalised observations ``[..., O]``.

    Args:
        num_features: ``O``, or what the encoder makes of them.
        hidden: sizes of the hidden layers.
        activation: of the hidden layers.
        layer_norm: LayerNorm after each hidden activation.
        generator: for the initial weights.
        encoder: layers that come first.
    """

    def __init__(
        self,
        num_features: int,
        hidden: tuple[int, ...],
        *,
        activation: Activation,
        layer_norm: bool,
        generator: torch.Generator,
        encoder: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        layers = mlp(
            num_features,
            hidden,
            1,
            activation=activation,
            layer_norm=layer_norm,
            output_gain=1.0,
            generator=generator,
        )
        self.network = nn.Sequential(*encoder, *layers)

    def forward(self, obs: Tensor) -> Tensor:
        value: Tensor = self.network(obs)
        return value.squeeze(-1)


def explained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """``1 - Var(target - prediction) / Var(target)``; 1 is perfect, 0 is as good as a constant."""
    variance = target.var(unbiased=False)
    return 1 - (target - prediction).var(unbiased=False) / variance.clamp_min(1e-12)


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, keep: float) -> None:
    """``target <- keep * target + (1 - keep) * source``, in place."""
    for old, new in zip(target.parameters(), source.parameters(), strict=True):
        old.lerp_(new, 1 - keep)
