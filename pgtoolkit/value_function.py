"""The learned value function: a baseline for one estimator, a terminal value for the other."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from pgtoolkit.errors import NonFiniteError
from pgtoolkit.networks import Activation, mlp
from pgtoolkit.optimization import clip_gradient


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


def fit_value_function(
    value_function: ValueFunction,
    optimizer: torch.optim.Optimizer,
    obs: Tensor,
    target: Tensor,
    *,
    n_epochs: int,
    n_minibatches: int,
    max_grad_norm: float,
    generator: torch.Generator,
) -> Tensor:
    """Fits ``V(obs)`` to ``target`` by mean squared error; returns the mean loss.

    Args:
        value_function: changed in place by the optimiser.
        optimizer: of its parameters.
        obs: ``[M, O]`` normalised observations of steps that happened.
        target: ``[M]``, constants.
        n_epochs: passes over the data, each freshly shuffled.
        n_minibatches: in each pass.
        max_grad_norm: global-norm clip.
        generator: for the shuffles.

    Raises:
        NonFiniteError: the loss is not finite; no step is taken on it.
    """
    losses = []
    for _ in range(n_epochs):
        order = torch.randperm(obs.shape[0], generator=generator, device=obs.device)
        for index in order.chunk(n_minibatches):
            loss = (value_function(obs[index]) - target[index]).square().mean()
            if not bool(torch.isfinite(loss)):
                raise NonFiniteError("value loss")
            optimizer.zero_grad()
            loss.backward()
            clip_gradient(value_function.parameters(), max_grad_norm)
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses).mean()


def explained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """``1 - Var(target - prediction) / Var(target)``; 1 is perfect, 0 is as good as a constant."""
    variance = target.var(unbiased=False)
    return 1 - (target - prediction).var(unbiased=False) / variance.clamp_min(1e-12)


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, keep: float) -> None:
    """``target <- keep * target + (1 - keep) * source``, in place."""
    for old, new in zip(target.parameters(), source.parameters(), strict=True):
        old.lerp_(new, 1 - keep)
