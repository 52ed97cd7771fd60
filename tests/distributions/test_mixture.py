"""The Gaussian mixture against torch, closed forms, and identities of its derivative."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pgtoolkit.distributions.mixture import GaussianMixture

F64 = torch.float64
Leaves = list[Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def leaves(size: int, dtype: torch.dtype = F64) -> Leaves:
    """Logits ``[3]``, means and log-sigmas ``[3, size]``; the components overlap."""
    logits = torch.tensor([0.4, -0.3, 0.1], dtype=dtype)
    mean = torch.tensor([[-1.0, 0.5], [0.2, -0.8], [1.1, 0.9]], dtype=dtype)
    log_std = torch.tensor([[-0.2, 0.1], [0.0, -0.3], [0.2, 0.0]], dtype=dtype)
    return [x.requires_grad_() for x in (logits, mean[:, :size].clone(), log_std[:, :size].clone())]


def make(parameters: Leaves) -> GaussianMixture:
    return GaussianMixture(parameters[0], parameters[1], parameters[2])


@functools.cache
def nodes(size: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes ``[M, size]`` and weights of an expectation over standard normals."""
    x, w = np.polynomial.hermite_e.hermegauss(140)
    grid = np.stack(np.meshgrid(*[x] * size, indexing="ij"), -1).reshape(-1, size)
    weight = functools.reduce(np.multiply.outer, [w / w.sum()] * size).reshape(-1)
    return torch.from_numpy(grid), torch.from_numpy(weight)


def all_noise(parameters: Leaves, size: int) -> tuple[Tensor, Tensor]:
    """Every component, forced by a huge Gumbel, with every node: noise and constant weights."""
    grid, weight = nodes(size)
    force = 1e4 * torch.eye(3, dtype=F64).repeat_interleave(len(grid), dim=0)
    noise = torch.cat([force, grid.repeat(3, 1)], dim=-1).to(parameters[0].dtype)
    component = torch.softmax(parameters[0].detach(), 0).repeat_interleave(len(grid))
    return noise, component * weight.repeat(3).to(component)


def function(a: Tensor) -> Tensor:
    """``a_1^3 + exp(0.3 a_1)``, and in two dimensions times ``1 + a_2 + a_2^2``."""
    value = a[..., 0].pow(3) + torch.exp(0.3 * a[..., 0])
    return value if a.shape[-1] == 1 else value * (1 + a[..., 1] + a[..., 1].square())


def expectation(parameters: Leaves) -> Tensor:
    """``E[f]`` in closed form: within a component the dimensions are independent."""
    weight, mean = torch.softmax(parameters[0], 0), parameters[1]
    variance = (2 * parameters[2]).exp()
    m, v = mean[:, 0], variance[:, 0]
    value = m.pow(3) + 3 * m * v + torch.exp(0.3 * m + 0.045 * v)
    if mean.shape[1] == 2:
        value = value * (1 + mean[:, 1] + mean[:, 1].square() + variance[:, 1])
    return (weight * value).sum()


def test_it_is_torchs() -> None:
    """Density, for a batch and samples of it; the logits need not be normalised."""
    logits = torch.randn(5, 3, generator=seeded(1), dtype=F64)
    mean = torch.randn(5, 3, 2, generator=seeded(2), dtype=F64)
    log_std = 0.3 * torch.randn(5, 3, 2, generator=seeded(3), dtype=F64)
    theirs: Any = MixtureSameFamily(
        Categorical(logits=logits), Independent(Normal(mean, log_std.exp()), 1)
    )
    action = 2 * torch.randn(4, 5, 2, generator=seeded(4), dtype=F64)
    for shift in (0.0, 100.0):
        ours = GaussianMixture(logits + shift, mean, log_std)
        torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))


def test_the_density_integrates_to_one() -> None:
    """The trapezoidal rule is spectrally accurate for this density."""
    x = torch.linspace(-12, 12, 1001, dtype=F64)
    density = make(leaves(1)).log_prob(x.unsqueeze(-1)).exp()
    assert float(torch.trapezoid(density, x).detach()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("estimator", ["pathwise", "score function"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-9), (torch.float32, 3e-6)])
@pytest.mark.parametrize("size", [1, 2])
def test_both_gradients_have_the_exact_expectation(
    size: int, estimator: str, dtype: torch.dtype, tolerance: float
) -> None:
    """By logits, means and sigmas. A sum over components and nodes, against the closed form.

    140 nodes resolve the pathwise integrand, a ratio of densities, to 1e-10; 3e-6 is fifty times
    the rounding of a float32.
    """
    parameters = leaves(size, dtype)
    distribution = make(parameters)
    noise, weight = all_noise(parameters, size)
    if estimator == "pathwise":
        estimate = (weight * function(distribution.rsample(noise))).sum()
    else:
        action, log_prob = distribution.sample_with_log_prob(noise)
        estimate = (weight * function(action) * log_prob).sum()
    found = torch.autograd.grad(estimate, parameters)
    exact = leaves(size)
    expected = torch.autograd.grad(expectation(exact), exact)
    for one, other in zip(found, expected, strict=True):
        assert float((one.double() - other).abs().max()) < tolerance * float(other.abs().max())


def test_the_path_through_the_chosen_component_alone_would_be_wrong() -> None:
    """That path has no derivative by the logits, but ``E[f]`` has one that is not 0."""
    exact = leaves(1)
    (by_logits, _, _) = torch.autograd.grad(expectation(exact), exact)
    assert float(by_logits.abs().max()) > 0.1


def jacobian(distribution: GaussianMixture, noise: Tensor, parameters: Leaves) -> list[Leaves]:
    """For each dimension of the sample, its derivatives by logits, means and log-sigmas."""
    sample = distribution.rsample(noise).sum(0)
    return [list(torch.autograd.grad(x, parameters, retain_graph=True)) for x in sample]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("normal", [-30.0, -6.0, -1.0, 0.0, 2.0, 7.0, 30.0])
def test_the_derivative_moves_and_stretches_with_the_mixture_also_in_its_tails(
    normal: float, dtype: torch.dtype
) -> None:
    """If all means move by ``h``, so does the sample; if all is stretched by ``1 + h``, it is too.

    And a constant added to all logits changes nothing. ``sum_k dx_d/dmean_kj = [d = j]``;
    ``sum_k mean_kj dx_d/dmean_kj + dx_d/dlog_std_kj = [d = j] x_d``. At 30 standard deviations the
    density itself is 1e-196, 0 in float32.
    """
    tolerance = 1e-3 if dtype == torch.float32 else 1e-11
    for component in range(3):
        parameters = leaves(2, dtype)
        noise = torch.full((1, 5), normal, dtype=dtype)
        noise[0, :3], noise[0, 4] = 0, 0.5 * normal
        noise[0, component] = 1e4
        distribution = make(parameters)
        x = distribution.sample(noise)[0]
        for d, (logits, mean, log_std) in enumerate(jacobian(distribution, noise, parameters)):
            unit = torch.eye(2, dtype=dtype)[d]
            scale = float(mean.abs().max())
            assert abs(float(logits.sum())) < tolerance * (1 + float(logits.abs().max()))
            assert float((mean.sum(0) - unit).abs().max()) < tolerance * scale
            stretched = (parameters[1].detach() * mean + log_std).sum(0)
            size = float(log_std.abs().max()) + scale
            assert float((stretched - unit * x[d]).abs().max()) < tolerance * size


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("normal", [-100.0, -5.0, 0.0, 3.0, 100.0])
def test_one_component_is_a_gaussian(normal: float, dtype: torch.dtype) -> None:
    """``dx/dmean = 1``, ``dx/dlog_std = sigma eps``, however far out."""
    mean = torch.tensor([[0.3]], dtype=dtype, requires_grad=True)
    log_std = torch.tensor([[-0.7]], dtype=dtype, requires_grad=True)
    distribution = GaussianMixture(torch.zeros(1, dtype=dtype), mean, log_std)
    x = distribution.rsample(torch.tensor([0.0, normal], dtype=dtype))
    by_mean, by_log_std = torch.autograd.grad(x.sum(), [mean, log_std])
    tolerance = 2e-3 if dtype == torch.float32 else 1e-11
    assert float(by_mean) == pytest.approx(1, rel=tolerance)
    assert float(by_log_std) == pytest.approx(np.exp(-0.7) * normal, rel=tolerance, abs=1e-7)


def test_the_rank_of_a_sample_stays_what_it_is() -> None:
    """``F(x(theta); theta)`` is constant to first order: its total derivative vanishes."""
    parameters = leaves(1)
    noise = make(parameters).draw_noise(seeded(6), (50,))
    logits, mean, log_std = parameters
    x = make(parameters).rsample(noise)
    rank = torch.softmax(logits, 0) * torch.special.ndtr((x - mean[:, 0]) / log_std[:, 0].exp())
    for row in rank.sum(-1):
        for gradient in torch.autograd.grad(row, parameters, retain_graph=True):
            assert float(gradient.abs().max()) < 1e-13


def test_samples_have_its_moments() -> None:
    """Mean and raw second moment of both dimensions within 4.5 standard errors."""
    parameters = [p.detach() for p in leaves(2)]
    count = 100_000
    distribution = GaussianMixture(
        parameters[0].expand(count, 3), parameters[1].expand(count, 3, 2), parameters[2]
    )
    sample = distribution.sample(generator=seeded(7))
    weight, mean = torch.softmax(parameters[0], 0).unsqueeze(-1), parameters[1]
    variance = (2 * parameters[2]).exp()
    moments = {1: mean, 2: mean.square() + variance, 4: 0.0}
    moments[4] = mean.pow(4) + 6 * mean.square() * variance + 3 * variance.square()
    raw = {k: (weight * torch.as_tensor(v)).sum(0) for k, v in moments.items()}
    for k in (1, 2):
        error = ((raw[2 * k] - raw[k].square()) / count).sqrt()
        assert bool(((sample.pow(k).mean(0) - raw[k]).abs() < 4.5 * error).all())


def test_the_entropy_is_unbiased_and_so_is_its_gradient() -> None:
    """The mean over the noise is the integral of ``-p log p``, by the trapezoidal rule."""
    parameters = leaves(1)
    noise, weight = all_noise(parameters, 1)
    estimate = (weight * make(parameters).entropy(noise)).sum()
    x = torch.linspace(-12, 12, 2001, dtype=F64)
    log_prob = make(parameters).log_prob(x.unsqueeze(-1))
    exact = -torch.trapezoid(log_prob.exp() * log_prob, x)
    torch.testing.assert_close(estimate, exact, rtol=1e-9, atol=1e-9)
    found = torch.autograd.grad(estimate, parameters)
    expected = torch.autograd.grad(exact, parameters)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
