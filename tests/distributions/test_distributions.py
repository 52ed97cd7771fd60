"""Distributions against torch.distributions, quadrature and their definitions."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import AffineTransform, Independent, Normal, TanhTransform
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import TransformedDistribution as Transformed

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.discrete import Categorical
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.squashed import TanhGaussian
from pgtoolkit.errors import RequestError

F64 = torch.float64
LOW, HIGH = (-1.0, 0.5, -7.0), (1.0, 2.0, -3.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and log-sigma ``[5, 3]``, leaves that want gradients."""
    mean = torch.randn(5, 3, generator=seeded(seed), dtype=F64)
    log_std = 0.3 * torch.randn(5, 3, generator=seeded(seed + 1), dtype=F64) - 0.5
    return mean.requires_grad_(), log_std.requires_grad_()


def gaussian() -> DiagonalGaussian:
    return DiagonalGaussian(*parameters())


def squashed() -> TanhGaussian:
    """A squashed Gaussian whose bounds are not symmetric about zero."""
    bounds = torch.tensor(LOW, dtype=F64), torch.tensor(HIGH, dtype=F64)
    return TanhGaussian(*parameters(), *bounds)


def categorical() -> Categorical:
    return Categorical(torch.randn(30, 4, generator=seeded(2), dtype=F64).requires_grad_())


ALL: dict[str, Callable[[], Distribution]] = {
    "gaussian": gaussian,
    "squashed": squashed,
    "categorical": categorical,
}
CONTINUOUS: dict[str, Callable[[], DiagonalGaussian | TanhGaussian]] = {
    "gaussian": gaussian,
    "squashed": squashed,
}


def inputs(distribution: Distribution) -> list[Tensor]:
    if isinstance(distribution, Categorical):
        return [distribution.logits]
    assert isinstance(distribution, DiagonalGaussian | TanhGaussian)
    return [distribution.mean, distribution.log_std]


def test_the_gaussian_is_torchs() -> None:
    """Density and entropy, summed over the action's dimensions."""
    ours = gaussian()
    theirs: Any = Independent(Normal(ours.mean, ours.log_std.exp()), 1)
    action = torch.randn(5, 3, generator=seeded(3), dtype=F64)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


def test_one_log_std_serves_all_rows() -> None:
    """Sigma ``[A]`` and mean ``[5, A]``: the entropy counts every dimension of every row."""
    mean, log_std = torch.zeros(5, 3), torch.tensor([-1.0, 0.0, 1.0])
    ours = DiagonalGaussian(mean, log_std)
    theirs: Any = Independent(Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.log_prob(mean), theirs.log_prob(mean))


def test_the_squashed_gaussian_is_torchs_tanh_and_affine_transform() -> None:
    """The densities agree, whether computed from the action or from the pre-squash action."""
    ours = squashed()
    scale, centre = (ours.high - ours.low) / 2, (ours.high + ours.low) / 2
    theirs: Any = Transformed(
        Independent(Normal(ours.mean, ours.log_std.exp()), 1),
        [TanhTransform(cache_size=1), AffineTransform(centre, scale, event_dim=1)],
    )
    pre_action = torch.randn(5, 3, generator=seeded(3), dtype=F64)
    action = centre + scale * torch.tanh(pre_action)
    torch.testing.assert_close(ours.squash(pre_action), action)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.log_prob_of_pre_action(pre_action), theirs.log_prob(action))


def test_the_categorical_is_torchs() -> None:
    """Density and entropy; the logits need not be normalised."""
    ours = categorical()
    theirs: Any = TorchCategorical(logits=ours.logits)
    action = torch.arange(30) % 4
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    shifted = Categorical(ours.logits + 100)
    torch.testing.assert_close(shifted.log_prob(action), theirs.log_prob(action))


@functools.cache
def legendre(low: float, high: float) -> tuple[Tensor, Tensor]:
    x, w = np.polynomial.legendre.leggauss(400)
    return (
        torch.from_numpy(low + (high - low) * (x + 1) / 2),
        torch.from_numpy(w * (high - low) / 2),
    )


@functools.cache
def hermite(nodes: int = 120) -> tuple[Tensor, Tensor]:
    """Nodes and weights of an expectation over a standard normal."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.from_numpy(x), torch.from_numpy(w / w.sum())


def one_dimensional(mean: Tensor, log_std: Tensor, low: float, high: float) -> TanhGaussian:
    return TanhGaussian(
        mean.reshape(1, 1),
        log_std.reshape(1, 1),
        torch.tensor([low], dtype=F64),
        torch.tensor([high], dtype=F64),
    )


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-2.0, 2.0), (0.5, 7.0), (-7.0, -3.0)])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (0.4, 0.5), (-0.7, 0.6)])
def test_the_squashed_density_integrates_to_one_and_has_the_samples_mean(
    low: float, high: float, mean: float, std: float
) -> None:
    """Integrals over actions are by Gauss-Legendre, the samples' mean by Gauss-Hermite."""
    distribution = one_dimensional(
        torch.tensor(mean, dtype=F64), torch.tensor(std, dtype=F64).log(), low, high
    )
    action, weight = legendre(low, high)
    density = distribution.log_prob(action.unsqueeze(-1)).exp()
    assert float((weight * density).sum()) == pytest.approx(1, abs=1e-9)
    noise, noise_weight = hermite()
    expected = float((noise_weight * distribution.sample(noise.unsqueeze(-1)).squeeze(-1)).sum())
    assert float((weight * density * action).sum()) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("u", [-50.0, -20.0, 20.0, 50.0])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_squashed_density_is_stable_far_out(u: float, dtype: torch.dtype) -> None:
    """log(1 - tanh(u)^2) tends to 2 (log 2 - |u|), where 1 - tanh(u)^2 itself rounds to 0."""
    mean = torch.tensor([u], dtype=dtype, requires_grad=True)
    distribution = TanhGaussian(
        mean,
        torch.zeros(1, dtype=dtype),
        torch.tensor([-2.0], dtype=dtype),
        torch.tensor([2.0], dtype=dtype),
    )
    pre_action = torch.tensor([u], dtype=dtype, requires_grad=True)
    jacobian = float(distribution.log_abs_det_jacobian(pre_action.detach()))
    assert jacobian == pytest.approx(2 * (np.log(2) - abs(u)) + np.log(2), rel=1e-6)
    log_prob = distribution.log_prob_of_pre_action(pre_action)
    expected = -0.5 * np.log(2 * np.pi) - jacobian
    assert float(log_prob.detach()) == pytest.approx(expected, rel=1e-6)
    # d/du [-(u - mean)^2 / 2 + 2 u + 2 softplus(-2u)] = 2 tanh(u) at u = mean.
    (slope,) = torch.autograd.grad(log_prob.sum(), pre_action)
    assert float(slope) == pytest.approx(2 * np.sign(u))


def test_actions_stay_within_their_bounds_far_out() -> None:
    """Whatever the bounds: ``centre + scale`` must not round to a number above ``high``.

    Such an action is outside the action space, and Gymnasium's checker says so. log_prob is finite.
    """
    low = torch.randn(1000, generator=seeded())
    high = low + 0.01 + 3 * torch.rand(1000, generator=seeded(1))
    distribution = TanhGaussian(torch.zeros(1000), torch.zeros(1000), low, high)
    for size in (-50.0, 50.0):
        action = distribution.sample(torch.full((1000,), size))
        assert bool(distribution.log_prob(action).isfinite())
        assert bool((action >= low).all())
        assert bool((action <= high).all())


@pytest.mark.parametrize("name", ALL)
def test_a_sample_carries_no_graph(name: str) -> None:
    """A sample with its density has no graph either; the density itself has one."""
    distribution = ALL[name]()
    assert not distribution.sample(generator=seeded()).requires_grad
    action, log_prob = distribution.sample_with_log_prob(generator=seeded())
    assert not action.requires_grad
    assert log_prob.requires_grad


@pytest.mark.parametrize("name", CONTINUOUS)
def test_rsample_carries_the_graph(name: str) -> None:
    """da/dmean = da/du, da/dlog_std = da/du sigma eps."""
    distribution = CONTINUOUS[name]()
    noise = distribution.draw_noise(seeded(4))
    action = distribution.rsample(noise)
    by_mean, by_log_std = torch.autograd.grad(action.sum(), inputs(distribution))
    slope = torch.ones_like(noise)
    if isinstance(distribution, TanhGaussian):
        u = distribution.mean + distribution.log_std.exp() * noise
        slope = (distribution.high - distribution.low) / 2 / torch.cosh(u).square()
    torch.testing.assert_close(by_mean, slope)
    torch.testing.assert_close(by_log_std, slope * distribution.log_std.exp() * noise)


@pytest.mark.parametrize("name", ALL)
def test_a_sample_with_its_density_is_the_sample_and_the_density(name: str) -> None:
    """For the same noise it equals ``sample`` and ``log_prob``, called one after the other."""
    distribution = ALL[name]()
    noise = distribution.draw_noise(seeded(5))
    action, log_prob = distribution.sample_with_log_prob(noise)
    assert torch.equal(action, distribution.sample(noise))
    torch.testing.assert_close(log_prob, distribution.log_prob(action))


@pytest.mark.parametrize("name", ALL)
def test_the_density_of_a_sample_has_the_score_as_its_gradient(name: str) -> None:
    """The action is held fixed: a path through it would change the gradient (to 0 for a mean)."""
    distribution = ALL[name]()
    noise = distribution.draw_noise(seeded(6))
    action, log_prob = distribution.sample_with_log_prob(noise)
    found = torch.autograd.grad(log_prob.sum(), inputs(distribution))
    fixed = torch.autograd.grad(distribution.log_prob(action).sum(), inputs(distribution))
    torch.testing.assert_close(found, fixed)
    if isinstance(distribution, DiagonalGaussian | TanhGaussian):
        # d/dmean = eps / sigma, d/dlog_std = eps^2 - 1
        torch.testing.assert_close(found[0], noise * (-distribution.log_std).exp())
        torch.testing.assert_close(found[1], noise.square() - 1)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_noise_or_generator_must_be_given(name: str) -> None:
    """Without both it is an error: the global random state is never used."""
    distribution = CONTINUOUS[name]()
    for method in (distribution.sample, distribution.rsample, distribution.sample_with_log_prob):
        with pytest.raises(ValueError, match=r"noise.*Generator"):
            method()
    with pytest.raises(ValueError, match=r"noise.*Generator"):
        categorical().sample()
    with pytest.raises(ValueError, match=r"noise.*Generator"):
        squashed().entropy()


@pytest.mark.parametrize("name", ALL)
def test_sampling_leaves_the_global_random_state_alone(name: str) -> None:
    """A sample depends on the generator alone."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    distribution = ALL[name]()
    first = distribution.sample(generator=seeded(7))
    distribution.sample_with_log_prob(generator=seeded(8))
    distribution.entropy(generator=seeded(9))
    if name != "categorical":
        distribution.rsample(generator=seeded(10))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, distribution.sample(generator=seeded(7)))
    generator = seeded(7)
    distribution.sample(generator=generator)
    assert not torch.equal(first, distribution.sample(generator=generator))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (0.4, 0.5), (-0.7, 0.6)])
def test_the_entropy_of_the_squashed_gaussian_is_unbiased_and_so_is_its_gradient(
    mean: float, std: float
) -> None:
    """The mean over the noise (Gauss-Hermite) is the integral of ``-p log p`` (Gauss-Legendre)."""
    leaves = [
        torch.tensor(mean, dtype=F64, requires_grad=True),
        torch.tensor(np.log(std), dtype=F64, requires_grad=True),
    ]
    distribution = one_dimensional(leaves[0], leaves[1], -1.0, 4.0)
    noise, noise_weight = hermite()
    estimate = (noise_weight * distribution.entropy(noise.unsqueeze(-1))).sum()
    action, weight = legendre(-1.0, 4.0)
    log_prob = distribution.log_prob(action.unsqueeze(-1))
    exact = -(weight * log_prob.exp() * log_prob).sum()
    torch.testing.assert_close(estimate, exact, rtol=1e-7, atol=1e-9)
    found = torch.autograd.grad(estimate, leaves)
    expected = torch.autograd.grad(exact, leaves)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_the_mode_is_the_squashed_location_or_the_likeliest_choice() -> None:
    """The mode is the sample for zero noise."""
    for distribution in (gaussian(), squashed()):
        assert torch.equal(distribution.mode, distribution.rsample(torch.zeros(5, 3, dtype=F64)))
    choice = Categorical(torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]]))
    assert choice.mode.tolist() == [1, 0]
    assert choice.sample(torch.zeros(2, 3)).tolist() == [1, 0]


def test_gumbel_max_draws_each_choice_with_its_probability() -> None:
    """Frequencies of 200 000 draws within 4.5 binomial standard errors."""
    logits = torch.tensor([0.5, -0.2, 0.1, -3.0, 0.0])
    count = 200_000
    draws = Categorical(logits.expand(count, 5)).sample(generator=seeded(11))
    p = torch.softmax(logits.double(), 0)
    frequency = torch.bincount(draws, minlength=5).double() / count
    error = (p * (1 - p) / count).sqrt()
    assert bool(((frequency - p).abs() < 4.5 * error).all())


def test_normal_noise_has_the_moments_of_a_standard_normal() -> None:
    """Mean 0, variance 1, fourth moment 3; standard errors 1, sqrt 2, sqrt 96 over sqrt n."""
    count = 300_000
    noise = DiagonalGaussian(torch.zeros(count, 1), torch.zeros(1)).draw_noise(seeded(12)).double()
    root = count**-0.5
    assert abs(float(noise.mean())) < 4.5 * root
    assert abs(float(noise.square().mean()) - 1) < 4.5 * 2**0.5 * root
    assert abs(float(noise.pow(4).mean()) - 3) < 4.5 * 96**0.5 * root


def test_categorical_noise_has_the_moments_of_a_gumbel_variable() -> None:
    """Mean 0.5772 (Euler), variance pi^2 / 6, excess kurtosis 12/5; and it is always finite."""
    count = 300_000
    noise = Categorical(torch.zeros(count, 1)).draw_noise(seeded(13)).double()
    assert bool(noise.isfinite().all())
    variance = np.pi**2 / 6
    assert abs(float(noise.mean()) - np.euler_gamma) < 4.5 * (variance / count) ** 0.5
    error = variance * ((12 / 5 + 2) / count) ** 0.5  # Var(s^2) = sigma^4 (excess + 2) / n
    assert abs(float(noise.var()) - variance) < 4.5 * error


def test_a_categorical_refuses_rsample_with_advice() -> None:
    """The error advises the score function."""
    with pytest.raises(RequestError, match="score function"):
        categorical().rsample(generator=seeded())


@pytest.mark.parametrize("name", ALL)
def test_distributions_are_values(name: str) -> None:
    """No attribute can be set, and no method changes what another returns."""
    distribution = ALL[name]()
    field = dataclasses.fields(distribution)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(distribution, field, torch.zeros(1))
    noise = distribution.draw_noise(seeded(13))
    before = distribution.log_prob(distribution.sample(noise))
    distribution.sample(generator=seeded(14))
    distribution.sample_with_log_prob(generator=seeded(15))
    assert torch.equal(before, distribution.log_prob(distribution.sample(noise)))
