"""Tests of fitting a value function."""

from typing import Any, final

import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from pgtoolkit.agents.sapo import SapoConfig
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.gradient_clip import clip_gradient
from pgtoolkit.learners.step_rules.base import Problem
from pgtoolkit.learners.value_learner import (
    ValueLearner,
    loss_error,
    make_value_ensemble,
    make_value_function,
)
from pgtoolkit.networks.value import ValueEnsemble, ValueFunction, explained_variance


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def value_function(hidden: tuple[int, ...] = (8,), seed: int = 0) -> ValueFunction:
    return ValueFunction(2, hidden, activation="tanh", layer_norm=False, generator=seeded(seed))


def data(n: int = 64) -> tuple[Tensor, Tensor]:
    obs = torch.randn(n, 2, generator=seeded(1))
    return obs, 3 * obs[:, 0] - obs[:, 1] + 2


@final
class Descent:
    """Plain gradient descent after a clip, as a step rule."""

    def __init__(self, max_grad_norm: float) -> None:
        self.max_grad_norm = max_grad_norm

    def step(self, module: nn.Module, problem: Problem | None = None) -> dict[str, Tensor]:
        clip_gradient(module.named_parameters(), self.max_grad_norm)
        torch.optim.SGD(module.parameters(), 0.05).step()
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def fit(value: ValueFunction, obs: Tensor, target: Tensor, **kwargs: float) -> Tensor:
    settings = {"n_epochs": 1, "n_minibatches": 4, "max_grad_norm": 1e9} | kwargs
    learner = ValueLearner(
        value,
        Descent(settings["max_grad_norm"]),
        n_epochs=int(settings["n_epochs"]),
        n_minibatches=int(settings["n_minibatches"]),
        generator=seeded(2),
    )
    return learner.fit((obs,), target)["train/value_loss"]


def test_the_fit_finds_a_linear_value() -> None:
    """A linear value function learns ``V = 3 x - y + 2``."""
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
    value.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 0].tolist()))
    obs = torch.stack([torch.arange(10.0), torch.zeros(10)], 1)
    fit(value, obs, torch.zeros(10), n_epochs=7, n_minibatches=4)
    del seen[0]  # the explained variance, before the fit
    assert len(seen) == 28
    epochs = [[x for batch in seen[4 * i : 4 * i + 4] for x in batch] for i in range(7)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 7


def test_more_minibatches_than_samples_are_one_sample_each() -> None:
    """There is no empty minibatch, whose mean would be NaN."""
    obs, target = data(3)
    assert bool(fit(value_function(), obs, target, n_minibatches=8).isfinite())


def test_a_target_that_is_not_finite_takes_no_step() -> None:
    """A NaN in the target raises an error and leaves the value function unchanged."""
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


def test_the_error_of_a_loss_names_step_and_environment() -> None:
    """The first loss that is not finite, or the largest where only their sum is not."""
    places = torch.tensor([[0, 1], [2, 3], [4, 0]])
    for losses in ([1.0, torch.nan, torch.inf], [1.0, 3e38, 2e38]):
        error = loss_error(torch.tensor(losses), places)
        assert (error.tensor, error.step, error.env_index) == ("value loss", 2, 3)
    assert loss_error(torch.tensor([torch.nan]), None).step is None


def test_an_ensemble_is_fitted_and_explains_by_its_mean() -> None:
    """Each member finds the same linear value from weights of its own."""
    ensemble = ValueEnsemble([value_function((), seed=seed) for seed in (0, 1)])
    obs, target = data()
    with torch.no_grad():
        before = explained_variance(ensemble(obs).mean(0), target)
    learner = ValueLearner(ensemble, Descent(1e9), n_epochs=100, generator=seeded(2))
    metrics = learner.fit((obs,), target)
    assert float(metrics["train/explained_variance"]) == pytest.approx(float(before))
    for member in ensemble.functions:
        torch.testing.assert_close(member(obs).detach(), target, rtol=0.02, atol=0.02)


def test_the_first_member_of_an_ensemble_has_the_weights_of_a_single_one() -> None:
    """So that one critic or two compare with one seed; the second has others."""
    config, space = SapoConfig(hidden=(4,)), Box(-1.0, 1.0, (2,))
    one = make_value_function(config, space, seed=5)
    first, second = make_value_ensemble(config, space, seed=5).functions
    for a, b, c in zip(one.parameters(), first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dim() == 1 or not torch.equal(a, c)


def test_a_fit_ends_once_its_loss_stops_changing() -> None:
    """Whatever the unit of the targets is; without a tolerance it makes all passes."""
    passes = []
    for scale in (1.0, 1000.0):
        value, (obs, target) = value_function(()), data()
        learner = ValueLearner(
            value, Descent(1e9), n_epochs=400, generator=seeded(2), tolerance=0.02
        )
        noise = torch.randn(64, generator=seeded(3))
        with torch.no_grad():
            for p in value.parameters():
                p.mul_(scale)
        metrics = learner.fit((obs,), scale * (target + noise))
        passes.append(float(metrics["train/value_epochs"]))
    assert passes[0] == passes[1]
    assert 5 < passes[0] < 400
    every = ValueLearner(value_function(()), Descent(1e9), n_epochs=40, generator=seeded(2))
    assert "train/value_epochs" not in every.fit(*((obs,), target))
