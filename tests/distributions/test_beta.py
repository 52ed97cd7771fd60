"""The beta distribution against torch, closed forms, and mpmath at 60 digits."""

from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import AffineTransform, Independent, TransformedDistribution
from torch.distributions import Beta as TorchBeta

from pgtoolkit.distributions.beta import Beta
from pgtoolkit.distributions.beta_quantile import beta_quantile, beta_quantile_derivatives

F64 = torch.float64
LOW, HIGH = torch.tensor([-2.0, 1.0], dtype=F64), torch.tensor([2.0, 1.5], dtype=F64)
SHAPES = [(0.1, 0.7), (0.5, 0.5), (1.0, 1.0), (2.5, 1.3), (1.0, 30.0), (200.0, 0.8), (1e3, 1e3)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(alpha: Tensor, beta: Tensor) -> Beta:
    """A Beta distribution with bounds 0 and 1."""
    return Beta(alpha, beta, torch.zeros_like(alpha), torch.ones_like(alpha))


def nodes() -> tuple[Tensor, Tensor]:
    """The trapezoidal rule over a standard normal: spectrally accurate for smooth functions."""
    z = torch.linspace(-12, 12, 401, dtype=F64)
    weight = torch.exp(-0.5 * z.square())
    return z.unsqueeze(-1), weight / weight.sum()


def test_it_is_torchs() -> None:
    """Density and entropy on bounds, from flat to peaked."""
    alpha = (2 * torch.randn(5, 2, generator=seeded(1), dtype=F64)).exp()
    beta = (2 * torch.randn(5, 2, generator=seeded(2), dtype=F64)).exp()
    ours = Beta(alpha, beta, LOW, HIGH)
    scaled = TransformedDistribution(TorchBeta(alpha, beta), [AffineTransform(LOW, HIGH - LOW)])
    theirs: Any = Independent(scaled, 1)
    x = torch.rand(4, 5, 2, generator=seeded(3), dtype=F64)
    action = LOW + (HIGH - LOW) * x
    torch.testing.assert_close(ours.squash(x), action)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.log_prob_of_pre_action(x), theirs.log_prob(action))
    unscaled: Any = TorchBeta(alpha, beta)
    entropy = (unscaled.entropy() + (HIGH - LOW).log()).sum(-1)
    torch.testing.assert_close(ours.entropy(), entropy)


def test_the_density_integrates_to_one() -> None:
    """The integral over the bounds is computed by Gauss-Legendre quadrature."""
    x, weight = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(400))
    alpha, beta = torch.tensor([2.0], dtype=F64), torch.tensor([3.5], dtype=F64)
    distribution = Beta(alpha, beta, LOW[:1], HIGH[:1])
    density = distribution.log_prob((2 * x).unsqueeze(-1)).exp()
    assert float((2 * weight * density).sum()) == pytest.approx(1, abs=1e-9)


def exact(z: float, a: float, b: float, x: float, y: float) -> tuple[float, float, float]:
    """Rank of the sample, and ``-dF/p`` by alpha and beta, by differentiating in 60 digits."""
    mpmath.mp.dps = 60
    point = mpmath.mpf(x) if x < y else 1 - mpmath.mpf(y)

    def cdf(alpha: Any, beta: Any) -> Any:
        if z <= 0:
            return mpmath.betainc(alpha, beta, 0, point, regularized=True)
        return -mpmath.betainc(beta, alpha, 0, 1 - point, regularized=True)

    density = point ** (mpmath.mpf(a) - 1) * (1 - point) ** (mpmath.mpf(b) - 1) / mpmath.beta(a, b)
    by_alpha = -mpmath.diff(lambda v: cdf(v, mpmath.mpf(b)), mpmath.mpf(a)) / density
    by_beta = -mpmath.diff(lambda v: cdf(mpmath.mpf(a), v), mpmath.mpf(b)) / density
    return float(abs(cdf(mpmath.mpf(a), mpmath.mpf(b)))), float(by_alpha), float(by_beta)


@pytest.mark.parametrize("z", [-5.0, -1.0, 0.0, 0.3, 4.0])
@pytest.mark.parametrize(("alpha", "beta"), SHAPES)
def test_sample_and_derivative_are_mpmaths(alpha: float, beta: float, z: float) -> None:
    """The sample has the rank of its noise; both derivatives are right to 1e-10, relative."""
    noise, a, b = (np.array(v) for v in (z, alpha, beta))
    x, y = beta_quantile(noise, a, b)
    by_alpha, by_beta = beta_quantile_derivatives(noise, a, b, x, y)
    rank, expected_by_alpha, expected_by_beta = exact(z, alpha, beta, float(x), float(y))
    assert float(mpmath.ncdf(-abs(z))) == pytest.approx(rank, rel=1e-10)
    assert float(by_alpha) == pytest.approx(expected_by_alpha, rel=1e-10)
    assert float(by_beta) == pytest.approx(expected_by_beta, rel=1e-10)


def test_the_derivative_is_more_accurate_than_torchs() -> None:
    """Torch's own (``_dirichlet_grad``) is an approximation: wrong in the fourth digit at worst."""
    ours, theirs = [], []
    for alpha, beta in SHAPES[1:6]:
        for z in (-1.0, 0.3):
            noise, a, b = (np.array(v) for v in (z, alpha, beta))
            x, y = beta_quantile(noise, a, b)
            _, expected, _ = exact(z, alpha, beta, float(x), float(y))
            found, _ = beta_quantile_derivatives(noise, a, b, x, y)
            sample, shape, total = (
                torch.tensor([float(v)], dtype=F64) for v in (x, alpha, alpha + beta)
            )
            dirichlet = torch._dirichlet_grad(sample, shape, total) * (1 - sample)
            ours.append(abs(float(found) / expected - 1))
            theirs.append(abs(float(dirichlet) / expected - 1))
    assert max(ours) < 1e-10
    assert max(theirs) > 1e-5


def moments(alpha: Tensor, beta: Tensor) -> Tensor:
    """``E[x + 2 x^2 - 3 x^4]``; ``E[x^k] = prod_i (alpha + i) / (alpha + beta + i)``."""
    raw = torch.stack([(alpha + i) / (alpha + beta + i) for i in range(4)]).cumprod(0)
    return (raw[0] + 2 * raw[1] - 3 * raw[3]).sum()


@pytest.mark.parametrize("estimator", ["pathwise", "score function"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-9), (torch.float32, 1e-6)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.3, 2.4), (2.5, 1.2), (6.0, 9.0), (1.0, 1.0)])
def test_both_gradients_have_the_exact_expectation(
    alpha: float, beta: float, estimator: str, dtype: torch.dtype, tolerance: float
) -> None:
    """Tested on a polynomial, by quadrature over the noise, relative to the largest entry."""
    leaves = [torch.tensor([v], dtype=dtype, requires_grad=True) for v in (alpha, beta)]
    noise, weight = (v.to(dtype) for v in nodes())
    distribution = unit(leaves[0], leaves[1])
    if estimator == "pathwise":
        x = distribution.rsample(noise)
        estimate = (weight * (x + 2 * x.square() - 3 * x.pow(4)).sum(-1)).sum()
    else:
        x, log_prob = distribution.sample_with_log_prob(noise)
        estimate = (weight * (x + 2 * x.square() - 3 * x.pow(4)).sum(-1) * log_prob).sum()
    found = torch.stack(torch.autograd.grad(estimate, leaves)).double()
    exact_leaves = [torch.tensor([v], dtype=F64, requires_grad=True) for v in (alpha, beta)]
    value = moments(exact_leaves[0], exact_leaves[1])
    expected = torch.stack(torch.autograd.grad(value, exact_leaves))
    assert float((found - expected).abs().max()) < tolerance * float(expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("alpha", [0.1, 1.0, 1e3])
@pytest.mark.parametrize("beta", [0.1, 1.0, 1e3])
def test_everything_is_finite_at_extreme_parameters_and_at_the_edges(
    alpha: float, beta: float, dtype: torch.dtype
) -> None:
    """Actions within bounds; sample, density and all gradients finite, whatever the noise."""
    leaves = [torch.tensor([v], dtype=dtype, requires_grad=True) for v in (alpha, beta)]
    low, high = torch.tensor([-0.1], dtype=dtype), torch.tensor([0.7], dtype=dtype)
    distribution = Beta(leaves[0], leaves[1], low, high)
    noise = torch.tensor([-1e6, -40, -9, -5, -1, 0, 1, 5, 9, 40, 1e6], dtype=dtype).unsqueeze(-1)
    x = distribution.pre_action(noise)
    assert bool((x > 0).all() and (x < 1).all())
    action = distribution.squash(x)
    assert bool((action >= low).all() and (action <= high).all())
    density = distribution.log_prob_of_pre_action(x.detach())
    by_action = distribution.log_prob(torch.cat([low, high]).unsqueeze(-1))
    for value in (x, density, by_action, distribution.entropy()):
        assert bool(value.isfinite().all())
        for gradient in torch.autograd.grad(value.sum(), leaves):
            assert bool(gradient.isfinite().all())


def test_samples_have_its_moments() -> None:
    """Mean and raw second moment within 4.5 standard errors."""
    count = 20_000
    alpha, beta = torch.tensor([0.6, 3.0], dtype=F64), torch.tensor([1.7, 2.0], dtype=F64)
    distribution = unit(alpha.expand(count, 2), beta.expand(count, 2))
    sample = distribution.sample(generator=seeded(5))
    raw = torch.stack([(alpha + i) / (alpha + beta + i) for i in range(4)]).cumprod(0)
    for k in (1, 2):
        error = ((raw[2 * k - 1] - raw[k - 1].square()) / count).sqrt()
        assert bool(((sample.pow(k).mean(0) - raw[k - 1]).abs() < 4.5 * error).all())


def test_the_mode_is_the_median() -> None:
    """``I_x(1, b) = 1 - (1 - x)^b`` is a half at ``1 - 2^(-1/b)``."""
    distribution = Beta(torch.ones(2, dtype=F64), torch.tensor([1.0, 3.0], dtype=F64), LOW, HIGH)
    expected = [0.0, 1 + 0.5 * (1 - 0.5 ** (1 / 3))]
    assert distribution.mode.tolist() == pytest.approx(expected, abs=1e-12)
