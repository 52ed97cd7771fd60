"""Measure-valued derivatives: exact by quadrature, node by node."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.quadrature import gauss_hermite
from pgtoolkit.estimators.expectation import expectation
from pgtoolkit.estimators.measure_valued import MeasureValuedNoise, measure_valued_surrogate
from pgtoolkit.estimators.reference_problems import (
    GaussianProblem,
    cosine,
    exponential,
    quadratic,
    quadratic_measure_valued_variance,
)

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rayleigh(nodes: int = 60) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a Rayleigh variable: panels of Gauss-Legendre nodes on [0, 12]."""
    x, w = panels(0.0, 12.0, nodes)
    return x, w * x * torch.exp(-x.square() / 2)


def panels(low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    x, w = (torch.from_numpy(t) for t in np.polynomial.legendre.leggauss(8))
    edges = torch.linspace(low, high, count + 1, dtype=F64)
    half = (edges[1:] - edges[:-1]) / 2
    nodes = (edges[:-1] + half).unsqueeze(1) + half.unsqueeze(1) * x
    return nodes.flatten(), (half.unsqueeze(1) * w).flatten()


def estimates(problem: GaussianProblem, noise: MeasureValuedNoise) -> Tensor:
    """Gradient estimates ``[N, 2]`` by mean and standard deviation."""
    copies = len(noise.normal)
    mean = torch.full((copies, 1), problem.mean, dtype=F64, requires_grad=True)
    log_std = torch.full((copies, 1), math.log(problem.std), dtype=F64, requires_grad=True)
    surrogate = measure_valued_surrogate(
        lambda x: problem.f(x).squeeze(-1), DiagonalGaussian(mean, log_std), noise
    )
    by_mean, by_log_std = torch.autograd.grad(surrogate.sum(), [mean, log_std])
    return torch.cat([by_mean, by_log_std / problem.std], 1)


PROBLEMS = [
    quadratic(1.3, 0.6, 0.2),
    quadratic(1.0, 1.0, -3.0),
    exponential(1.0, 1.0, 1.0),
    cosine(0.4, 0.7, 1.3),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=["quadratic", "table", "exponential", "cosine"])
def test_the_gradient_is_exact_by_quadrature(problem: GaussianProblem) -> None:
    """Rayleigh nodes for the mean, Maxwell and uniform nodes for the deviation; to 1e-10."""
    w, weight = rayleigh()
    blank = torch.zeros(len(w), 1, dtype=F64)
    found = estimates(problem, MeasureValuedNoise(blank, w.unsqueeze(1), blank, blank))
    assert float(weight @ found[:, 0]) == pytest.approx(problem.gradient.mean, rel=1e-10)

    eps, normal_weight = gauss_hermite(80)
    u, uniform_weight = panels(0.0, 1.0, 4)
    m = eps.expand(-1, len(u)).reshape(-1, 1)
    both = (normal_weight * eps.squeeze(-1).square()).unsqueeze(1) * uniform_weight
    blank = torch.zeros_like(m)
    noise = MeasureValuedNoise(blank, blank, m, u.repeat(len(eps)).unsqueeze(1))
    found = estimates(problem, noise)
    assert float(both.flatten() @ found[:, 1]) == pytest.approx(problem.gradient.std, rel=1e-10)


def test_the_variance_of_a_quadratic_is_the_closed_form() -> None:
    """D^2 (16 / pi - 4) and 4 D^2 + 4 s^2, by quadrature."""
    for mean, std, k in ((1.3, 0.6, 0.2), (1.0, 1.0, -3.0)):
        problem, exact = quadratic(mean, std, k), quadratic_measure_valued_variance(mean, std, k)
        w, weight = rayleigh()
        blank = torch.zeros(len(w), 1, dtype=F64)
        found = estimates(problem, MeasureValuedNoise(blank, w.unsqueeze(1), blank, blank))[:, 0]
        variance = weight @ (found - problem.gradient.mean).square()
        assert float(variance) == pytest.approx(exact.mean, rel=1e-9)
        eps, normal_weight = gauss_hermite(20)
        u, uniform_weight = panels(0.0, 1.0, 2)
        m = eps.expand(-1, len(u)).reshape(-1, 1)
        both = (normal_weight * eps.squeeze(-1).square()).unsqueeze(1) * uniform_weight
        blank = torch.zeros_like(m)
        noise = MeasureValuedNoise(blank, blank, m, u.repeat(len(eps)).unsqueeze(1))
        found = estimates(problem, noise)[:, 1]
        variance = both.flatten() @ (found - problem.gradient.std).square()
        assert float(variance) == pytest.approx(exact.std, rel=1e-9)


def test_the_noise_has_its_laws() -> None:
    """Moments within 4.5 standard errors: w^2 has mean 2, m^2 mean 3, (u m) is standard normal."""
    noise = MeasureValuedNoise.draw(torch.zeros(100_000, dtype=F64), seeded())
    product = noise.uniform * noise.maxwell
    checks = [
        (noise.rayleigh, math.sqrt(math.pi / 2)),
        (noise.rayleigh.square(), 2.0),
        (noise.maxwell, 0.0),
        (noise.maxwell.square(), 3.0),
        (noise.maxwell**4, 15.0),
        (product, 0.0),
        (product.square(), 1.0),
        (product**4, 3.0),
    ]
    for sample, exact in checks:
        error = float(sample.std()) / math.sqrt(len(sample))
        assert abs(float(sample.mean()) - exact) < 4.5 * error
    assert bool((noise.rayleigh > 0).all())


def test_several_dimensions_and_a_jump() -> None:
    """F = 1[x_1 > 0] x_2^2, which has no path: exact gradients within 4.5 standard errors."""
    a, b, s = 0.3, -0.5, 0.8
    mean = torch.tensor([a, b], dtype=F64).expand(50_000, 2).clone().requires_grad_()
    log_std = torch.full((50_000, 2), math.log(s), dtype=F64, requires_grad=True)
    surrogate = expectation(
        lambda x: (x[..., 0] > 0).double() * x[..., 1].square(),
        DiagonalGaussian(mean, log_std),
        "measure_valued",
        num_samples=1,
        generator=seeded(1),
    )
    by_mean, by_log_std = torch.autograd.grad(surrogate.sum(), [mean, log_std])
    density = math.exp(-((a / s) ** 2) / 2) / math.sqrt(2 * math.pi)
    above, second = 0.5 * (1 + math.erf(a / s / math.sqrt(2))), b**2 + s**2
    exact = [density / s * second, above * 2 * b, -a / s * density * second, above * 2 * s**2]
    for sample, truth in zip(torch.cat([by_mean, by_log_std], 1).T, exact, strict=True):
        error = float(sample.std()) / math.sqrt(len(sample))
        assert abs(float(sample.mean()) - truth) < 4.5 * error
