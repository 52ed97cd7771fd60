"""Transformed distributions and couplings against torch, closed forms and quadrature."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    Independent,
    Laplace,
    Normal,
    ReshapeTransform,
    SigmoidTransform,
    TanhTransform,
    TransformedDistribution,
)

from pgtoolkit.distributions.coupling import AffineCoupling
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.transformed import Transformed, Uniform

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard(*shape: int, dtype: torch.dtype = F64) -> DiagonalGaussian:
    zeros = torch.zeros(*shape, dtype=dtype)
    return DiagonalGaussian(zeros, zeros)


def coupled(parameters: Tensor) -> AffineCoupling:
    """``y_1 = x_1``; ``y_2 = x_2 exp(a x_1 + c) + b x_1 + d``."""
    a, b, c, d = parameters.unbind(0)
    return AffineCoupling((True, False), lambda kept: (b * kept + d, a * kept + c))


def leaf(*values: float, dtype: torch.dtype = F64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def nodes(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes and weights of an expectation over two standard normals."""
    x, w = np.polynomial.hermite_e.hermegauss(60)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
    weight = np.outer(w, w).reshape(-1) / w.sum() ** 2
    return torch.tensor(grid, dtype=dtype), torch.tensor(weight, dtype=dtype)


CHAINS: dict[str, Any] = {
    "affine": [AffineTransform(torch.tensor([1.0, -2.0]), torch.tensor([0.5, -3.0]))],
    "affine event": [AffineTransform(1.0, 0.5, event_dim=1)],
    "log-normal": [AffineTransform(0.3, 0.5), ExpTransform()],
    "logit-normal": [AffineTransform(0.3, 0.5), SigmoidTransform()],
    "coupling": [coupled(torch.tensor([0.4, -0.3, 0.2, 0.7])), AffineTransform(0.3, 0.5)],
    "nothing": [],
}


@pytest.mark.parametrize("name", CHAINS)
def test_it_is_torchs(name: str) -> None:
    """Density and sample, with maps that act by dimension and maps that act on all."""
    noise = torch.randn(4, 5, 2, generator=seeded(1), dtype=F64)
    ours = Transformed(standard(5, 2), tuple(CHAINS[name]))
    normal = Normal(torch.zeros(5, 2, dtype=F64), torch.ones(5, 2, dtype=F64))
    theirs: Any = TransformedDistribution(Independent(normal, 1), CHAINS[name])
    action = noise
    for transform in CHAINS[name]:
        action = transform(action)
    torch.testing.assert_close(ours.sample(noise), action)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    sample, log_prob = ours.sample_with_log_prob(noise)
    torch.testing.assert_close(log_prob, theirs.log_prob(sample))


def test_an_inverse_distribution_function_of_uniform_noise() -> None:
    """The Laplace distribution: density, and ``dx/dloc = 1``, ``dx/dscale = (x - loc) / scale``."""
    loc, scale = leaf(0.5, -1.0), leaf(0.7, 2.0)
    quantile = CumulativeDistributionTransform(Laplace(loc, scale)).inv
    zeros = torch.zeros(7, 2, dtype=F64)
    distribution = Transformed(Uniform(zeros, zeros + 1), (quantile,))
    noise = torch.linspace(-4, 4, 7, dtype=F64).unsqueeze(-1).expand(7, 2)
    x = distribution.rsample(noise)
    theirs: Any = Laplace(loc, scale)
    torch.testing.assert_close(theirs.cdf(x), torch.special.ndtr(noise))
    torch.testing.assert_close(distribution.log_prob(x), theirs.log_prob(x).sum(-1))
    by_loc, by_scale = torch.autograd.grad(x.sum(), [loc, scale])
    torch.testing.assert_close(by_loc, torch.full_like(loc, 7.0))
    torch.testing.assert_close(by_scale, ((x - loc) / scale).sum(0).detach())


@pytest.mark.parametrize("size", [-1e3, -6.0, 6.0, 1e3])
def test_uniform_noise_stays_off_its_ends(size: float) -> None:
    """So a quantile function of the noise is finite, even in float32."""
    zeros = torch.zeros(2)
    distribution = Uniform(zeros, zeros + 1)
    u = distribution.sample(torch.full((2,), size))
    assert bool((u > 0).all() and (u < 1).all())
    quantile = CumulativeDistributionTransform(Normal(0.0, 1.0)).inv
    assert bool(
        Transformed(distribution, (quantile,)).sample(torch.full((2,), size)).isfinite().all()
    )


def test_the_uniform_distribution_is_uniform() -> None:
    """Density inside and outside; entropy; mean and variance within 4.5 standard errors."""
    low, high = torch.tensor([-1.0, 2.0], dtype=F64), torch.tensor([1.0, 2.5], dtype=F64)
    distribution = Uniform(low, high)
    inside, outside = torch.tensor([0.0, 2.1]), torch.tensor([0.0, 2.6])
    assert float(distribution.log_prob(inside)) == pytest.approx(0.0, abs=1e-15)  # 2 * 0.5 = 1
    assert float(distribution.log_prob(outside)) == -np.inf
    assert float(distribution.entropy()) == pytest.approx(0.0, abs=1e-15)
    count = 100_000
    x = distribution.sample(distribution.draw_noise(seeded(2), (count,)))
    width = high - low
    assert bool(((x.mean(0) - (low + high) / 2).abs() < 4.5 * width / (12 * count) ** 0.5).all())
    error = width.square() * (1 / 80 - 1 / 144) ** 0.5 / count**0.5  # fourth moment w^4 / 80
    assert bool(((x.var(0) - width.square() / 12).abs() < 4.5 * error).all())


def second_moment(p: Tensor) -> Tensor:
    """``E[y_2^2] + E[y_1 y_2] = exp(2c + 2a^2) + b^2 + d^2 + b`` for the coupling alone.

    ``E[exp(2 a x)] = exp(2 a^2)`` for a standard normal x.
    """
    a, b, c, d = p.unbind(0)
    return torch.exp(2 * c + 2 * a.square()) + b.square() + d.square() + b


@pytest.mark.parametrize("estimator", ["pathwise", "score function"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (torch.float32, 1e-6)])
def test_both_gradients_of_a_flow_have_the_exact_expectation(
    estimator: str, dtype: torch.dtype, tolerance: float
) -> None:
    """Gradients by the conditioner's parameters: Gauss-Hermite quadrature gives the closed form."""
    values = (0.3, -0.6, -0.2, 0.7)
    parameters = leaf(*values, dtype=dtype)
    noise, weight = nodes(dtype)
    distribution = Transformed(standard(2, dtype=dtype), (coupled(parameters),))

    def function(y: Tensor) -> Tensor:
        return y[..., 1].square() + y[..., 0] * y[..., 1]

    if estimator == "pathwise":
        estimate = (weight * function(distribution.rsample(noise))).sum()
    else:
        action, log_prob = distribution.sample_with_log_prob(noise)
        estimate = (weight * function(action) * log_prob).sum()
    (found,) = torch.autograd.grad(estimate, parameters)
    exact = leaf(*values)
    (expected,) = torch.autograd.grad(second_moment(exact), exact)
    assert float((found.double() - expected).abs().max()) < tolerance * float(expected.abs().max())


def test_the_density_of_a_flow_integrates_to_one() -> None:
    """Two couplings with opposite masks and a nonlinear conditioner, by the trapezoidal rule."""

    def conditioner(kept: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(kept), 0.3 * torch.tanh(kept)

    chain = (AffineCoupling((True, False), conditioner), AffineCoupling((False, True), conditioner))
    x = torch.linspace(-13, 13, 521, dtype=F64)
    grid = torch.cartesian_prod(x, x)
    density = Transformed(standard(2), chain).log_prob(grid).exp()
    assert float(density.sum() * (x[1] - x[0]).square()) == pytest.approx(1, abs=1e-9)


def test_the_entropy_of_the_log_normal_distribution() -> None:
    """``mu + 1/2 log(2 pi e sigma^2)``, in expectation over the noise; and its gradient."""
    parameters = leaf(0.3, -0.7)
    mean, log_std = parameters.unbind(0)
    chain = (AffineTransform(mean, log_std.exp()), ExpTransform())
    noise, weight = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(20))
    entropy = Transformed(standard(1), chain).entropy(noise.unsqueeze(-1))
    estimate = (weight / weight.sum() * entropy).sum()
    exact = mean + log_std + 0.5 * np.log(2 * np.pi * np.e)
    torch.testing.assert_close(estimate, exact)
    (found,) = torch.autograd.grad(estimate, parameters)
    assert found.tolist() == pytest.approx([1.0, 1.0])


def test_a_cache_does_not_cut_the_graph() -> None:
    """With torch's cache the inverse of a sample is the stored one, which has no graph."""
    scale = leaf(0.5)
    noise = torch.tensor([[0.3]], dtype=F64)
    chain = (AffineTransform(0.0, scale, cache_size=1),)
    action, log_prob = Transformed(standard(1, 1), chain).sample_with_log_prob(noise)
    (found,) = torch.autograd.grad(log_prob.sum(), scale)
    # d/ds [-(y / s)^2 / 2 - log s] = y^2 / s^3 - 1 / s
    assert float(found) == pytest.approx(float(action) ** 2 / 0.125 - 2)


def test_the_density_of_a_sample_does_not_invert() -> None:
    """In float32 tanh(12) is 1, whose inverse is infinite; from the noise the density is finite."""
    scale = leaf(1.0, dtype=torch.float32)
    chain = (AffineTransform(0.0, scale), TanhTransform())
    distribution = Transformed(standard(1, 1, dtype=torch.float32), chain)
    _, log_prob = distribution.sample_with_log_prob(torch.tensor([[12.0]]))
    # log N(12) - 2 (log 2 - 12 - softplus(-24))
    expected = -72 - 0.5 * np.log(2 * np.pi) - 2 * (np.log(2) - 12)
    assert float(log_prob.detach()) == pytest.approx(expected, rel=1e-6)


def test_a_map_of_more_than_the_last_axis_is_refused() -> None:
    """A map of two axes is refused, because an action has one axis."""
    with pytest.raises(ValueError, match="last axis"):
        Transformed(standard(2, 3), (ReshapeTransform(torch.Size([2, 3]), torch.Size([3, 2])),))
