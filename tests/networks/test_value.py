"""The value function: its fit, its target copy, and the measure of both."""

import pytest
import torch
from torch import Tensor, nn

from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.value_learner import fit_value_function
from pgtoolkit.networks.value import ValueFunction, explained_variance, polyak_update


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def value_function(hidden: tuple[int, ...] = (8,), seed: int = 0) -> ValueFunction:
    return ValueFunction(2, hidden, activation="tanh", layer_norm=False, generator=seeded(seed))


def data(n: int = 64) -> tuple[Tensor, Tensor]:
    obs = torch.randn(n, 2, generator=seeded(1))
    return obs, 3 * obs[:, 0] - obs[:, 1] + 2


def fit(value: ValueFunction, obs: Tensor, target: Tensor, **kwargs: float) -> Tensor:
    settings = {"n_epochs": 1, "n_minibatches": 4, "max_grad_norm": 1e9} | kwargs
    optimizer = torch.optim.SGD(value.parameters(), 0.05)
    return fit_value_function(
        value,
        optimizer,
        obs,
        target,
        n_epochs=int(settings["n_epochs"]),
        n_minibatches=int(settings["n_minibatches"]),
        max_grad_norm=settings["max_grad_norm"],
        generator=seeded(2),
    )


def test_a_value_has_no_trailing_axis() -> None:
    """[T, N, O] to [T, N], so that it can be subtracted from returns."""
    assert value_function()(torch.zeros(5, 4, 2)).shape == (5, 4)


def test_the_fit_finds_a_linear_value() -> None:
    """V = 3 x - y + 2, by a linear function."""
    value, (obs, target) = value_function(()), data()
    fit(value, obs, target, n_epochs=60)
    layer = value.network[0]
    assert isinstance(layer, nn.Linear)
    assert layer.weight.flatten().tolist() == pytest.approx([3, -1], abs=1e-3)
    assert layer.bias.tolist() == pytest.approx([2], abs=1e-3)


def test_the_loss_is_the_mean_squared_error() -> None:
    """One minibatch, one epoch: before its step, so of the function as it was."""
    value, (obs, target) = value_function(), data()
    expected = (value(obs) - target).square().mean().detach()
    torch.testing.assert_close(fit(value, obs, target, n_minibatches=1), expected)


def test_every_sample_is_used_once_in_every_epoch() -> None:
    """Ten samples in four minibatches, seven epochs, freshly shuffled each time."""
    seen: list[list[float]] = []
    value = value_function()
    value.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 0].tolist()))
    obs = torch.stack([torch.arange(10.0), torch.zeros(10)], 1)
    fit(value, obs, torch.zeros(10), n_epochs=7, n_minibatches=4)
    assert len(seen) == 28
    epochs = [[x for batch in seen[4 * i : 4 * i + 4] for x in batch] for i in range(7)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 7


def test_more_minibatches_than_samples_are_one_sample_each() -> None:
    """No empty minibatch, whose mean would be NaN."""
    obs, target = data(3)
    assert bool(fit(value_function(), obs, target, n_minibatches=8).isfinite())


def test_a_target_that_is_not_finite_takes_no_step() -> None:
    """It is an error, and the function is as it was."""
    value, (obs, target) = value_function(), data()
    before = [parameter.clone() for parameter in value.parameters()]
    target[5] = float("nan")
    with pytest.raises(NonFiniteError, match="value loss"):
        fit(value, obs, target, n_minibatches=1)
    for old, new in zip(before, value.parameters(), strict=True):
        assert torch.equal(old, new)


def test_the_gradient_is_clipped() -> None:
    """One step of plain gradient descent at rate 0.05 with norm 0.1 moves by 0.005."""
    value, (obs, target) = value_function(), data()
    before = torch.cat([parameter.detach().flatten() for parameter in value.parameters()])
    fit(value, obs, 100 * target, n_minibatches=1, max_grad_norm=0.1)
    after = torch.cat([parameter.detach().flatten() for parameter in value.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.05 * 0.1, rel=1e-4)


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
    polyak_update(target, source, keep)
    for now, before, other, same in zip(
        target.parameters(), old, source.parameters(), fixed, strict=True
    ):
        torch.testing.assert_close(now, keep * before + (1 - keep) * other)
        assert torch.equal(other, same)
        assert now.grad_fn is None
