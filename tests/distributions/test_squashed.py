"""Tanh-squashing of every base, against torch, quadrature and the squashed Gaussian."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    MultivariateNormal,
    TanhTransform,
    TransformedDistribution,
)

from pgtoolkit.distributions.gaussian import DiagonalGaussian, FullGaussian
from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.distributions.squashed import Squashed, TanhGaussian, tanh_unsquash

F64 = torch.float64
LOW = torch.tensor([-1.0, 0.5, -7.0], dtype=F64)
HIGH = torch.tensor([1.0, 2.0, -3.0], dtype=F64)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_of_a_diagonal_gaussian_it_is_the_tanh_gaussian() -> None:
    """Bit for bit: samples, densities, entropy, mode."""
    mean, log_std, noise = normal(5, 3, seed=1), normal(5, 3, seed=2), normal(4, 5, 3, seed=3)
    one = Squashed(DiagonalGaussian(mean, log_std), LOW, HIGH)
    other = TanhGaussian(mean, log_std, LOW, HIGH)
    action = other.sample(noise)
    assert torch.equal(one.sample(noise), action)
    assert torch.equal(one.log_prob(action), other.log_prob(action))
    assert torch.equal(one.entropy(noise), other.entropy(noise))
    assert torch.equal(one.mode, other.mode)
    for a, b in zip(
        one.sample_with_log_prob(noise), other.sample_with_log_prob(noise), strict=True
    ):
        assert torch.equal(a, b)


def test_of_a_full_gaussian_it_is_torchs_tanh_and_affine_transform() -> None:
    """The densities agree, whether computed from the action or from the pre-squash action."""
    mean, raw, noise = normal(5, 3, seed=1), normal(5, 3, 3, seed=2), normal(4, 5, 3, seed=3)
    scale = 0.5 * (raw.tril(-1) + raw.diagonal(dim1=-2, dim2=-1).abs().diag_embed())
    ours = Squashed(FullGaussian(mean, scale), LOW, HIGH)
    half = (HIGH - LOW) / 2
    chain = [TanhTransform(cache_size=1), AffineTransform(LOW + half, half, event_dim=1)]
    theirs: Any = TransformedDistribution(MultivariateNormal(mean, scale_tril=scale), chain)
    pre_action = ours.pre_action(noise)
    action = ours.squash(pre_action)
    torch.testing.assert_close(ours.log_prob_of_pre_action(pre_action), theirs.log_prob(action))
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))


def one_dimensional() -> tuple[Squashed, list[Tensor]]:
    """A mixture of two Gaussians, squashed to (-1, 4), and its parameters."""
    leaves = [
        torch.tensor([0.3, -0.2], dtype=F64),
        torch.tensor([[-0.5], [0.6]], dtype=F64),
        torch.tensor([[-1.0], [-0.8]], dtype=F64),
    ]
    for x in leaves:
        x.requires_grad_()
    base = GaussianMixture(leaves[0], leaves[1], leaves[2])
    return Squashed(base, torch.tensor([-1.0], dtype=F64), torch.tensor([4.0], dtype=F64)), leaves


def legendre() -> tuple[Tensor, Tensor]:
    """Nodes and weights of an integral over (-1, 4)."""
    x, w = np.polynomial.legendre.leggauss(400)
    return torch.from_numpy(1.5 + 2.5 * x).unsqueeze(-1), torch.from_numpy(2.5 * w)


def test_the_density_of_a_squashed_mixture_integrates_to_one() -> None:
    """The density integrates to 1 over the bounds."""
    distribution, _ = one_dimensional()
    action, weight = legendre()
    density = distribution.log_prob(action).exp()
    assert float((weight * density).sum().detach()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("quantity", ["entropy", "pathwise", "score function"])
def test_expectations_of_a_squashed_mixture_have_the_exact_gradient(quantity: str) -> None:
    """Entropy and ``E[a^3]``, over components and Gauss-Hermite nodes.

    Against the derivative of the integral over actions, by Gauss-Legendre.
    """
    distribution, leaves = one_dimensional()
    x, w = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(160))
    force = 1e4 * torch.eye(2, dtype=F64).repeat_interleave(160, dim=0)
    noise = torch.cat([force, x.repeat(2).unsqueeze(-1)], dim=-1)
    component = torch.softmax(leaves[0].detach(), 0).repeat_interleave(160)
    weight = component * (w / w.sum()).repeat(2)
    action, action_weight = legendre()
    log_prob = distribution.log_prob(action)
    if quantity == "entropy":
        estimate = (weight * distribution.entropy(noise)).sum()
        exact = -(action_weight * log_prob.exp() * log_prob).sum()
        torch.testing.assert_close(estimate, exact, rtol=1e-8, atol=1e-9)
    else:
        exact = (action_weight * log_prob.exp() * action[:, 0].pow(3)).sum()
        if quantity == "pathwise":
            estimate = (weight * distribution.rsample(noise)[:, 0].pow(3)).sum()
        else:
            sample, sample_log_prob = distribution.sample_with_log_prob(noise)
            estimate = (weight * sample[:, 0].pow(3) * sample_log_prob).sum()
    found = torch.autograd.grad(estimate, leaves)
    expected = torch.autograd.grad(exact, leaves)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_densities_and_bounds_hold_far_out(dtype: torch.dtype) -> None:
    """A pre-action of 50: the action is the bound itself, its density is finite."""
    zeros, eye = torch.zeros(2, dtype=dtype), torch.eye(2, dtype=dtype)
    low, high = torch.tensor([-0.1, 3.0], dtype=dtype), torch.tensor([0.7, 3.3], dtype=dtype)
    distribution = Squashed(FullGaussian(zeros, eye), low, high)
    for size in (-50.0, 50.0):
        action, log_prob = distribution.sample_with_log_prob(torch.full((2,), size, dtype=dtype))
        assert bool((action >= low).all() and (action <= high).all())
        assert bool(log_prob.isfinite() and distribution.log_prob(action).isfinite())


# The density of an action alone ------------------------------------------------------------------


def around(u: Tensor, low: float, high: float) -> TanhGaussian:
    """A unit Gaussian around each pre-action, squashed to the bounds."""
    like = u.new_zeros(1)
    return TanhGaussian(u, like, like + low, like + high)


@pytest.mark.parametrize(("saturation", "bound"), [(4, 5e-5), (6, 3e-3), (7, 0.02), (8, 0.2)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_error_at_saturation_is_the_documented_one(
    saturation: float, bound: float, sign: int
) -> None:
    """In float32 between -1 and 1; the bound is not loose, and the pre-action has no error."""
    u = sign * torch.linspace(saturation - 0.5, saturation, 2001).unsqueeze(-1)
    distribution = around(u, -1, 1)
    exact = around(u.double(), -1, 1).log_prob_of_pre_action(u.double())
    error = (distribution.log_prob(distribution.squash(u)).double() - exact).abs().max()
    assert bound / 4 < float(error) < bound
    action, log_prob = distribution.sample_with_log_prob(torch.zeros_like(u))
    assert torch.equal(action, distribution.squash(u))
    torch.testing.assert_close(log_prob.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 1.0), (10.0, 20.0), (-7.0, -3.0)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_error_follows_its_law(bounds: tuple[float, float], dtype: torch.dtype) -> None:
    """At most ``|2 tanh u| rho exp(2 |u|) / 4`` where that is small, whatever the bounds."""
    low, high = bounds
    largest = 5.5 if dtype == torch.float32 else 15.0
    u = torch.linspace(-largest, largest, 4001, dtype=dtype).unsqueeze(-1)
    distribution = around(u, low, high)
    error = distribution.log_prob(distribution.squash(u)) - distribution.log_prob_of_pre_action(u)
    eps = torch.finfo(dtype).eps
    rho = eps * max(abs(low), abs(high)) / (high - low)
    law = 2 * u.squeeze(-1).tanh().abs() * rho * torch.exp(2 * u.squeeze(-1).abs()) / 4
    rounding = 40 * eps
    assert bool((error.abs() <= 1.2 * law + rounding).all())


@pytest.mark.parametrize(("dtype", "smallest"), [(torch.float32, 9.0109), (F64, 18.7150)])
def test_an_action_at_a_bound_has_the_smallest_pre_action_that_is_rounded_to_it(
    dtype: torch.dtype, smallest: float
) -> None:
    """Finite, at both bounds, also for offset bounds of which float32 sees little."""
    like = torch.zeros(1, dtype=dtype)
    for sign in (-1.0, 1.0):
        u = tanh_unsquash(like + sign, like - 1, like + 1)
        assert float(u) == pytest.approx(sign * smallest, abs=1e-3)
        distribution = around(like, -1, 1)
        expected = distribution.log_prob_of_pre_action(u)
        assert torch.equal(distribution.log_prob(like + sign), expected)
    for low, high in ((1000.0, 1001.0), (1e8, 1e8 + 16), (-1e-30, 1e-30)):
        for action in (low, high):
            assert bool(around(like, low, high).log_prob(like + action).isfinite())
