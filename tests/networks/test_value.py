"""Value functions, their heads, the lagged copy, and the explained variance."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pgtoolkit.networks.value import (
    HLGauss,
    Lagged,
    QEnsemble,
    QFunction,
    SquaredError,
    ValueEnsemble,
    ValueFunction,
    ValueHead,
    explained_variance,
    explained_variance_metric,
    polyak_update,
)


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


def test_an_ensemble_of_values_puts_its_members_first_and_adds_their_losses() -> None:
    """[T, N, O] to [n, T, N]."""
    members = [value_function(seed=seed) for seed in (0, 1)]
    ensemble, (obs, target) = ValueEnsemble(members), data(6)
    assert torch.equal(ensemble(obs), torch.stack([member(obs) for member in members]))
    assert ensemble(torch.zeros(5, 4, 2)).shape == (2, 5, 4)
    expected = members[0].loss(obs, target) + members[1].loss(obs, target)
    torch.testing.assert_close(ensemble.loss(obs, target), expected)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 1.0, -0.1, 1e6, 1.7e9, 1e-12])
def test_a_constant_target_has_no_explained_variance(constant: float, dtype: torch.dtype) -> None:
    """Up to rounding, at any size: a few neighbours of the constant are a constant, too."""
    generator, eps = seeded(0), torch.finfo(dtype).eps
    units = torch.randint(-4, 5, (64,), generator=generator).to(dtype)
    for target in (torch.full((64,), constant, dtype=dtype), constant * (1 + eps * units)):
        for prediction in (target, target + torch.randn(64, generator=generator, dtype=dtype)):
            assert bool(explained_variance(prediction, target).isnan())
            assert explained_variance_metric(prediction, target) == {}
    assert bool(explained_variance(torch.ones(1), torch.ones(1)).isnan())
    assert bool(explained_variance(torch.ones(0), torch.ones(0)).isnan())


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e12])
def test_a_target_that_varies_by_more_than_rounding_has_one(scale: float) -> None:
    """Whatever its unit: the criterion is relative. The ratio of the variances is 1 / 4."""
    target = scale * (1 + 1e-4 * torch.randn(1000, generator=seeded(0), dtype=torch.float64))
    prediction = target + 0.5 * (target - target.mean())
    assert float(explained_variance(prediction, target)) == pytest.approx(0.75)
    metric = explained_variance_metric(prediction.float(), target.float())
    assert float(metric["train/explained_variance"]) == pytest.approx(0.75, abs=0.01)


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


# Heads --------------------------------------------------------------------------------------------


def test_the_squared_error_of_known_outputs() -> None:
    """Outputs [..., 1]; (3 - 1)^2 = 4 and (-1 - 1)^2 = 4, unreduced."""
    head, output = SquaredError(), torch.tensor([[[3.0]], [[-1.0]]])
    assert head.num_outputs == 1
    assert head.value(output).tolist() == [[3.0], [-1.0]]
    assert head.loss(output, torch.ones(2, 1)).tolist() == [[4.0], [4.0]]


def head_of(num_bins: int = 50) -> HLGauss:
    """A histogram head with bins from -4 to 6, of width 0.2 by default."""
    return HLGauss(-4.0, 6.0, num_bins).double()


TARGETS = torch.linspace(-4, 6, 201, dtype=torch.float64)


def test_a_histogram_is_a_probability_for_every_target() -> None:
    """Targets are in the range, on its ends and far outside, and may have any shape."""
    far = torch.tensor([-1e6, -4.1, 6.1, 1e6], dtype=torch.float64)
    histogram = head_of().histogram(torch.cat([TARGETS, far]).view(5, 41))
    assert histogram.shape == (5, 41, 50)
    assert float(histogram.min()) >= 0
    torch.testing.assert_close(histogram.sum(-1), torch.ones(5, 41, dtype=torch.float64))


def test_the_bins_of_a_histogram_are_masses_of_a_gaussian() -> None:
    """Worked example: four bins from 0 to 4, target 2, sigma 3/4.

    ``Phi(4/3) - Phi(0)`` is 0.40879 and ``Phi(8/3) - Phi(4/3)`` is 0.08738; divided by their sum.
    """
    head = HLGauss(0.0, 4.0, 4)
    assert head.centres.tolist() == [0.5, 1.5, 2.5, 3.5]
    near, far = 0.408789, 0.087381
    near, far = near / (2 * (near + far)), far / (2 * (near + far))
    found = head.histogram(torch.tensor(2.0)).tolist()
    assert found == pytest.approx([far, near, near, far], abs=2e-6)


def test_the_mean_of_a_histogram_is_its_target_to_the_width_of_a_bin() -> None:
    """To 1e-3 of a width far from the ends, where the Gaussian is cut; everywhere to a width."""
    head, width = head_of(), 0.2
    error = (head.histogram(TARGETS) @ head.centres - TARGETS).abs()
    assert float(error.max()) < width
    inner = (-4 + 5 * width < TARGETS) & (6 - 5 * width > TARGETS)
    assert float(error[inner].max()) < 1e-3 * width


def test_a_target_out_of_the_range_is_clipped_to_it() -> None:
    head = head_of()
    ends = head.histogram(torch.tensor([-4.0, 6.0], dtype=torch.float64))
    beyond = head.histogram(torch.tensor([-5.0, 1e6], dtype=torch.float64))
    assert torch.equal(ends, beyond)
    assert ends.argmax(-1).tolist() == [0, 49]


def test_the_loss_is_least_at_the_targets_histogram() -> None:
    """There it is the histogram's entropy, has gradient 0, and any other logits have more."""
    head = head_of()
    target = torch.tensor([-3.0, 0.33, 5.5], dtype=torch.float64)
    histogram = head.histogram(target)
    logits = histogram.clamp_min(1e-300).log().requires_grad_()
    loss = head.loss(logits, target)
    entropy = -torch.special.xlogy(histogram, histogram).sum(-1)
    torch.testing.assert_close(loss, entropy)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert float(gradient.abs().max()) < 1e-12
    generator = seeded(3)
    for scale in (1e-3, 0.1, 3.0):
        shift = scale * torch.randn(logits.shape, generator=generator, dtype=torch.float64)
        assert bool((head.loss(logits + shift, target) > loss).all())


def test_a_value_lies_between_the_outer_centres() -> None:
    """Logits that prefer one bin give its centre; equal ones the middle of the range."""
    head = head_of()
    one_hot = 1e3 * torch.eye(50, dtype=torch.float64)
    torch.testing.assert_close(head.value(one_hot), head.centres)
    assert float(head.value(torch.zeros(50, dtype=torch.float64))) == pytest.approx(1.0)


@pytest.mark.parametrize("arguments", [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0, 1)])
def test_a_range_without_bins_is_refused(arguments: tuple[float, ...]) -> None:
    low, high, *bins = arguments
    with pytest.raises(ValueError, match="low < high and 2 bins"):
        HLGauss(low, high, *(int(n) for n in bins))


@pytest.mark.parametrize("head", [SquaredError(), HLGauss(-10.0, 10.0)])
def test_a_value_of_either_head_has_a_finite_gradient_in_the_observation(head: ValueHead) -> None:
    """It is finite even far from the data, where a softmax is saturated."""
    value = ValueFunction(
        2, (8,), activation="tanh", layer_norm=False, generator=seeded(), head=head
    )
    last = value.network[-1]
    assert isinstance(last, nn.Linear) and last.out_features == head.num_outputs
    obs = torch.cat([data()[0], torch.tensor([[1e6, -1e6]])]).requires_grad_()
    (gradient,) = torch.autograd.grad(value(obs).sum(), obs)
    assert bool(gradient.isfinite().all()) and float(gradient[:-1].abs().max()) > 0


@pytest.mark.parametrize("head", [SquaredError(), HLGauss(-12.0, 16.0, 51)])
def test_a_value_function_learns_with_either_head(head: ValueHead) -> None:
    """By its own loss ``[M]``, most of the variance of 3 x - y + 2 is explained."""
    obs, target = data(256)
    value = ValueFunction(
        2, (32,), activation="tanh", layer_norm=False, generator=seeded(), head=head
    )
    assert value.loss(obs, target).shape == (256,)
    optimizer = torch.optim.Adam(value.parameters(), 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        torch.autograd.backward(value.loss(obs, target).mean())
        optimizer.step()
    assert float(explained_variance(value(obs).detach(), target)) > 0.9


def test_a_histograms_bins_are_not_saved_and_follow_the_module() -> None:
    """The bins come from the settings; changing the module's precision changes theirs."""
    head = HLGauss(0.0, 1.0, 4)
    assert head.state_dict() == {} and list(head.parameters()) == []
    assert head.double().centres.dtype == torch.float64


# Ensembles ----------------------------------------------------------------------------------------


def ensemble(num_members: int = 3, head: ValueHead | None = None) -> QEnsemble:
    generator = seeded()
    return QEnsemble(
        [
            QFunction(
                2, 1, (8,), activation="tanh", layer_norm=False, generator=generator, head=head
            )
            for _ in range(num_members)
        ]
    )


def test_an_ensemble_puts_its_members_first() -> None:
    """[n, T, N] from observations [T, N, 2] and actions [T, N, 1]."""
    obs, action = torch.zeros(5, 4, 2), torch.zeros(5, 4, 1)
    assert ensemble()(obs, action).shape == (3, 5, 4)
    assert ensemble(1)(obs[0], action[0]).shape == (1, 4)


def test_members_differ_and_see_observation_and_action() -> None:
    """Each by its own weights, from one generator."""
    q, obs = ensemble(), data(6)[0]
    action = torch.linspace(-1, 1, 6).unsqueeze(-1)
    values = q(obs, action)
    for one in range(3):
        expected = q.members[one](obs, action)
        assert torch.equal(values[one], expected)
        for other in range(one):
            assert not torch.allclose(values[one], values[other], rtol=0.01)
    assert not torch.equal(q(obs, -action), values)
    assert torch.equal(ensemble()(obs, action), values)  # the same seed, the same weights


@pytest.mark.parametrize("head", [None, HLGauss(-12.0, 16.0)])
def test_the_loss_of_an_ensemble_is_the_sum_of_its_members(head: ValueHead | None) -> None:
    """``[M]``; so the gradient of each member is that of its own loss."""
    q, (obs, target) = ensemble(head=head), data(6)
    action = torch.linspace(-1, 1, 6).unsqueeze(-1)
    losses = [function.loss(obs, action, target) for function in q.functions]
    total = q.loss(obs, action, target)
    torch.testing.assert_close(total, losses[0] + losses[1] + losses[2])
    last = list(q.members[2].parameters())
    by_total = torch.autograd.grad(total.mean(), last)
    by_own = torch.autograd.grad(losses[2].mean(), last)
    for one, other in zip(by_total, by_own, strict=True):
        torch.testing.assert_close(one, other)


def test_the_least_of_two_members_is_clipped_double_q_learning() -> None:
    """The minimum over the first axis; its gradient in the action is that of the lower member."""
    q, obs = ensemble(2), data(6)[0]
    action = torch.zeros(6, 1, requires_grad=True)
    values = q(obs, action)
    (found,) = torch.autograd.grad(values.amin(0).sum(), action, retain_graph=True)
    by_member = [torch.autograd.grad(v.sum(), action, retain_graph=True)[0] for v in values]
    torch.testing.assert_close(q.policy_value(obs, action), values.amin(0))
    first = QEnsemble(q.functions, policy_value="first")
    torch.testing.assert_close(first.policy_value(obs, action), values[0])
    lower = values.argmin(0).unsqueeze(-1)
    assert 0 < int(lower.sum()) < 6
    torch.testing.assert_close(found, torch.where(lower == 0, *by_member))


# The lagged copy ----------------------------------------------------------------------------------


def test_gradients_pass_through_a_lagged_copy_to_its_inputs_and_stop_at_its_parameters() -> None:
    value = value_function()
    lagged = Lagged(value, 0.5)
    obs = data(5)[0].requires_grad_()
    found = lagged(obs)
    torch.testing.assert_close(found, value(obs))
    (by_obs,) = torch.autograd.grad(found.sum(), obs, retain_graph=True)
    (expected,) = torch.autograd.grad(value(obs).sum(), obs)
    torch.testing.assert_close(by_obs, expected)
    torch.autograd.backward(found.sum())
    assert all(parameter.grad is None for parameter in value.parameters())
    assert all(parameter.grad is None for parameter in lagged.copy.parameters())
    assert all(parameter.requires_grad for parameter in value.parameters())


@pytest.mark.parametrize("tau", [0.0, 0.25, 1.0])
def test_a_lagged_copy_approaches_the_module_geometrically(tau: float) -> None:
    """After k updates towards a module that stays, the distance is (1 - tau)^k of that before."""
    value = value_function()
    lagged = Lagged(value, tau)
    with torch.no_grad():
        for parameter in value.parameters():
            parameter.add_(1.0)
    obs = data(5)[0]
    assert not torch.allclose(lagged(obs), value(obs))
    for number in range(1, 4):
        lagged.update()
        for old, new in zip(lagged.copy.parameters(), value.parameters(), strict=True):
            torch.testing.assert_close(new - old, torch.full_like(new, (1 - tau) ** number))
            assert not old.requires_grad


def test_a_lagged_copy_takes_every_input_of_its_module() -> None:
    q, obs, action = ensemble(), data(6)[0], torch.zeros(6, 1)
    assert torch.equal(Lagged(q, 0.5)(obs, action), q(obs, action))


def test_a_saved_lagged_copy_comes_back_and_leaves_the_module_alone() -> None:
    one, other = Lagged(value_function(seed=1), 0.5), Lagged(value_function(seed=2), 0.5)
    obs = data(5)[0]
    before = other.module(obs)
    state = copy.deepcopy(one.state_dict())
    assert all(isinstance(x, Tensor) for x in state.values())
    other.load_state_dict(state)
    assert torch.equal(other(obs), one(obs))
    assert torch.equal(other.module(obs), before)
