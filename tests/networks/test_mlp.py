"""Hidden layers: the first layer's initial biases, and what they do to the slope near 0."""

import pytest
import torch
from torch import Tensor, nn

from pgtoolkit.networks.mlp import hidden_layers

F64 = torch.float64


def torso(first_bias: float, hidden: tuple[int, ...] = (64, 64)) -> nn.Sequential:
    """Hidden layers on two inputs as in shac and apg, with the same seed."""
    layers = hidden_layers(
        2,
        hidden,
        activation="elu",
        layer_norm=True,
        generator=torch.Generator().manual_seed(0),
        first_bias=first_bias,
    )
    return nn.Sequential(*layers).double()


def slope(network: nn.Module, scale: float) -> float:
    """The largest singular value of the features' Jacobian at an input of that norm."""
    point = scale * torch.tensor([0.6, -0.8], dtype=F64)

    def features(x: Tensor) -> Tensor:
        return network(x)  # type: ignore[no-any-return]

    jacobian = torch.autograd.functional.jacobian(features, point)  # type: ignore[no-untyped-call]
    assert isinstance(jacobian, Tensor)
    return float(torch.linalg.svdvals(jacobian)[0])


def test_the_first_biases_are_spread_and_nothing_else_changes() -> None:
    """Uniform within the half-width; weights, and the biases of the second layer, are the same."""
    plain, spread = torso(0.0), torso(0.3)
    changed = {
        name: value
        for name, value in spread.state_dict().items()
        if not torch.equal(value, plain.state_dict()[name])
    }
    assert changed.keys() == {"0.bias"}
    biases = changed["0.bias"]
    assert float(biases.abs().max()) <= 0.3
    # The variance of U(-w, w) is w^2 / 3; a sample of 64 has it within 4 sqrt(0.8 / 64) = 0.45.
    assert float(biases.square().mean()) == pytest.approx(0.03, rel=0.45)


def test_without_hidden_layers_there_is_no_first_bias() -> None:
    """A linear policy has no hidden layer whose biases could be spread."""
    assert len(torso(0.3, hidden=())) == 0


def test_a_layer_norm_on_biases_of_0_has_a_slope_without_bound() -> None:
    """At a hundredth of the input the slope is about a hundred times as large.

    The features of a small input do not shrink with it, until LayerNorm's epsilon, 1e-5, is felt.
    With spread biases they have a limit, and so has the slope.
    """
    assert slope(torso(0.0), 0.01) > 30 * slope(torso(0.0), 1.0)
    assert slope(torso(0.3), 0.01) < 3 * slope(torso(0.3), 1.0)
    near, nearer = (slope(torso(0.3), scale) for scale in (1e-3, 1e-4))
    assert nearer == pytest.approx(near, rel=0.01)
