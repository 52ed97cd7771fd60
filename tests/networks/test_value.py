"""Value functions, their heads, the lagged copy, and the explained variance."""

import pytest
import torch
from torch import Tensor

from pgtoolkit.networks.value import ValueFunction, explained_variance, polyak_update


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def value_function(hidden: tuple[int, ...] = (8,), seed: int = 0) -> ValueFunction:
    return ValueFunction(2, hidden, activation="tanh", layer_norm=False, generator=seeded(seed))


def data(n: int = 64) -> tuple[Tensor, Tensor]:
    obs = torch.randn(n, 2, generator=seeded(1))
    return obs, 3 * obs[:, 0] - obs[:, 1] + 2


def test_a_value_has_no_trailing_axis() -> None:
    """[T, N, O] to [T, N], so that it can be subtracted from returns."""
    assert value_function()(torch.zeros(5, 4, 2)).shape == (5, 4)


def test_explained_variance_of_known_predictions() -> None:
    """Perfect 1, a constant 0, twice the target 0 (error variance = variance), its negative -3."""
    target = torch.tensor([1.0, 2.0, 3.0, 6.0])
    for prediction, expected in (
        (target, 1.0),
        (target + 5, 1.0),
        (torch.full((4,), 9.0), 0.0),
        (2 * target, 0.0),
        (-target, -3.0),
    ):
        assert float(explained_variance(prediction, target)) == pytest.approx(expected, abs=1e-6)


def test_explained_variance_of_a_constant_target_is_finite() -> None:
    """It would be 0 / 0."""
    constant = torch.ones(4)
    assert float(explained_variance(constant, constant)) == 1
    assert bool(explained_variance(torch.arange(4.0), constant).isfinite())


@pytest.mark.parametrize("keep", [0.0, 0.25, 1.0])
def test_the_target_moves_by_the_share_that_it_does_not_keep(keep: float) -> None:
    """Target <- keep target + (1 - keep) source, and the source stays."""
    target, source = value_function(seed=1), value_function(seed=2)
    old = [parameter.clone() for parameter in target.parameters()]
    fixed = [parameter.clone() for parameter in source.parameters()]
    polyak_update(target, source, 1 - keep)
    for now, before, other, same in zip(
        target.parameters(), old, source.parameters(), fixed, strict=True
    ):
        torch.testing.assert_close(now, keep * before + (1 - keep) * other)
        assert torch.equal(other, same)
        assert now.grad_fn is None
