"""The Gaussian with full covariance against torch and closed forms."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pgtoolkit.distributions.gaussian import FullGaussian

F64 = torch.float64
TILT = (0.3, -0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    mean = torch.tensor([0.7, -0.4], dtype=dtype, requires_grad=True)
    scale = torch.tensor([[0.8, 0.0], [-0.5, 0.6]], dtype=dtype, requires_grad=True)
    return mean, scale


def nodes(dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes and weights of an expectation over two standard normals."""
    x, w = np.polynomial.hermite_e.hermegauss(40)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
    weight = np.outer(w, w).reshape(-1) / w.sum() ** 2
    return torch.tensor(grid, dtype=dtype), torch.tensor(weight, dtype=dtype)


def function(a: Tensor) -> Tensor:
    """The test function ``a_1^2 a_2 + exp(c . a)``."""
    return a[..., 0].square() * a[..., 1] + torch.exp(a @ torch.tensor(TILT, dtype=a.dtype))


def expectation(mean: Tensor, scale: Tensor) -> Tensor:
    """``m_1^2 m_2 + m_2 S_11 + 2 m_1 S_12 + exp(c . m + c S c / 2)``, ``S = L L^T``."""
    covariance = scale @ scale.T
    polynomial = mean[0].square() * mean[1] + mean[1] * covariance[0, 0]
    c = torch.tensor(TILT, dtype=mean.dtype)
    return (
        polynomial + 2 * mean[0] * covariance[0, 1] + torch.exp(c @ mean + 0.5 * c @ covariance @ c)
    )


def test_it_is_torchs() -> None:
    """Density, entropy and sample, for a batch; entries above the diagonal are not read."""
    mean = torch.randn(5, 3, generator=seeded(1), dtype=F64)
    scale = torch.randn(5, 3, 3, generator=seeded(2), dtype=F64)
    scale = scale.tril(-1) + scale.diagonal(dim1=-2, dim2=-1).abs().diag_embed()
    ours = FullGaussian(mean, scale + torch.ones(3, 3, dtype=F64).triu(1))
    theirs: Any = MultivariateNormal(mean, scale_tril=scale)
    action = torch.randn(4, 5, 3, generator=seeded(3), dtype=F64)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    noise = torch.randn(4, 5, 3, generator=seeded(4), dtype=F64)
    expected = mean + torch.einsum("bij,sbj->sbi", scale, noise)
    torch.testing.assert_close(ours.sample(noise), expected)


def test_one_scale_serves_all_rows() -> None:
    """A Cholesky factor ``[A, A]`` is broadcast to the rows of a mean ``[5, A]``."""
    mean, scale = torch.randn(5, 2, generator=seeded(1), dtype=F64), parameters()[1].detach()
    ours = FullGaussian(mean, scale)
    theirs: Any = MultivariateNormal(mean, scale_tril=scale)
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.log_prob(mean + 1), theirs.log_prob(mean + 1))
    assert ours.sample(generator=seeded()).shape == (5, 2)


@pytest.mark.parametrize("estimator", ["pathwise", "score function"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (torch.float32, 1e-6)])
def test_both_gradients_have_the_exact_expectation(
    estimator: str, dtype: torch.dtype, tolerance: float
) -> None:
    """Gauss-Hermite quadrature over the noise gives the closed form; tolerances are relative."""
    mean, scale = parameters(dtype)
    noise, weight = nodes(dtype)
    distribution = FullGaussian(mean, scale)
    if estimator == "pathwise":
        estimate = (weight * function(distribution.rsample(noise))).sum()
    else:
        action, log_prob = distribution.sample_with_log_prob(noise)
        estimate = (weight * function(action) * log_prob).sum()
    found = torch.autograd.grad(estimate, [mean, scale])
    exact = parameters()
    expected = torch.autograd.grad(expectation(*exact), exact)
    for one, other in zip(found, expected, strict=True):
        error = (one.double() - other.tril() if one.ndim == 2 else one.double() - other).abs()
        assert float(error.max()) < tolerance * float(other.abs().max())


def test_samples_have_its_mean_and_covariance() -> None:
    """Each within 4.5 standard errors; Var(s_ij) = (S_ii S_jj + S_ij^2) / n."""
    mean, scale = (parameter.detach() for parameter in parameters())
    count = 100_000
    sample = FullGaussian(mean.expand(count, 2), scale).sample(generator=seeded(5))
    covariance = scale @ scale.T
    error = (covariance.diagonal() / count).sqrt()
    assert bool(((sample.mean(0) - mean).abs() < 4.5 * error).all())
    variance = covariance.diagonal()
    error = ((torch.outer(variance, variance) + covariance.square()) / count).sqrt()
    assert bool(((sample.T.cov() - covariance).abs() < 4.5 * error).all())
