"""The ELBO's gradients and its maximum on a Gaussian posterior, against closed forms."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.distributions.gaussian import DiagonalGaussian, FullGaussian
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.estimators.expectation import Method
from pgtoolkit.scripts.variational.elbo import FAMILIES, ElboOptimizer, standard_deviations

F64 = torch.float64
PRECISION = torch.tensor([[2.0, 0.8, 0.0], [0.8, 1.0, -0.3], [0.0, -0.3, 0.5]], dtype=F64)
CENTRE = torch.tensor([0.5, -1.0, 0.2], dtype=F64)


def log_joint(z: Tensor) -> Tensor:
    shift = z - CENTRE
    return 3.0 - 0.5 * ((shift @ PRECISION) * shift).sum(-1)


def make_optimizer(
    family: str, estimator: Method, num_samples: int, **settings: Any
) -> ElboOptimizer:
    chosen = {"learning_rate": 0.02, "steps": 1000, "measurement_interval": 0, "seed": 0} | settings
    return ElboOptimizer(
        log_joint, FAMILIES[family], 3, estimator=estimator, num_samples=num_samples, **chosen
    )


def exact_gradient(parameters: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """Gradient of ``3 - 1/2 (m - c)'P(m - c) - 1/2 tr(P L L') + log det L`` by autograd."""
    leaves = {name: p.clone().requires_grad_() for name, p in parameters.items()}
    lower = leaves.get("lower", torch.zeros(3, 3, dtype=F64)).tril(-1)
    L = lower + torch.diag(leaves["log_std"].exp())
    elbo = log_joint(leaves["mean"]) - 0.5 * (PRECISION * (L @ L.T)).sum()
    elbo = elbo + leaves["log_std"].sum()
    found = torch.autograd.grad(elbo, list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize(
    ("family", "estimator"),
    [
        ("diagonal", "pathwise"),
        ("diagonal", "score_function"),
        ("diagonal", "measure_valued"),
        ("full", "pathwise"),
        ("full", "score_function"),
    ],
)
def test_each_estimate_of_the_gradient_is_unbiased(family: str, estimator: Method) -> None:
    """50 000 samples, every entry of every parameter, within 4.5 standard errors."""
    fitted = make_optimizer(family, estimator, 50_000)
    generator = torch.Generator().manual_seed(1)
    for parameter in fitted.parameters.values():
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=F64)
    noise = torch.randn(50_000, 3, generator=generator, dtype=F64)
    elbo, gradients = fitted.estimate(estimator, noise)
    assert elbo.shape == (50_000,)
    for name, expected in exact_gradient(fitted.parameters, family).items():
        values = gradients[name]
        error = values.std(0) / math.sqrt(len(values))
        distance = (values.mean(0) - expected).abs()
        assert bool((distance <= 4.5 * error + 1e-12).all()), name
        assert float(error.max()) < 0.1  # the bound means something


@pytest.mark.parametrize(
    ("estimator", "mean_error", "std_error"),
    [
        ("pathwise", 0.011, 0.011),
        ("score_function", 0.028, 0.020),
        ("measure_valued", 0.008, 0.007),
    ],
)
def test_mean_field_arrives_where_theory_puts_it(
    estimator: Method, mean_error: float, std_error: float
) -> None:
    """It has the posterior's mean and std 1 / sqrt(P_ii), which is less than the marginal's.

    The errors given are what noise leaves: root mean squares over ten seeds, of the worst entry.
    The fit starts with errors of 1 and of 60 %.
    """
    fitted = make_optimizer("diagonal", estimator, 64)
    for _ in range(1000):
        fitted.step()
    q = fitted.distribution
    assert q.mean.tolist() == pytest.approx(CENTRE.tolist(), abs=4.5 * mean_error)
    expected = PRECISION.diagonal().rsqrt()
    deviations = standard_deviations(q)
    assert deviations.tolist() == pytest.approx(expected.tolist(), rel=4.5 * std_error)
    marginal = torch.linalg.inv(PRECISION).diagonal().sqrt()
    assert bool((expected < 0.95 * marginal).all())


@pytest.mark.parametrize(
    ("estimator", "mean_error", "covariance_error"),
    [("pathwise", 0.011, 0.025), ("score_function", 0.016, 0.082)],
)
def test_a_full_covariance_arrives_at_the_posterior(
    estimator: Method, mean_error: float, covariance_error: float
) -> None:
    """Errors as above; the entries of the covariance are up to 2.7."""
    fitted = make_optimizer("full", estimator, 128)
    for _ in range(1000):
        fitted.step()
    q = fitted.distribution
    assert isinstance(q, FullGaussian)
    assert q.mean.tolist() == pytest.approx(CENTRE.tolist(), abs=4.5 * mean_error)
    difference = q.scale_tril @ q.scale_tril.T - torch.linalg.inv(PRECISION)
    assert float(difference.abs().max()) < 4.5 * covariance_error


@pytest.mark.parametrize("family", FAMILIES)
def test_measuring_changes_no_bit_of_the_fit(family: str) -> None:
    """The update's own gradient is measured; the others draw from separate random streams."""
    ends = []
    for interval in (0, 1):
        fitted = make_optimizer(family, "score_function", 16, measurement_interval=interval)
        for _ in range(5):
            metrics = fitted.step()
        ends.append(fitted.parameters)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    norm = float(metrics["gradient/score_function/norm"])
    assert all(p.grad is not None for p in fitted.parameters.values())
    update = torch.cat([p.grad.flatten() for p in fitted.parameters.values()])  # type: ignore[union-attr]
    assert norm == pytest.approx(float(update.norm()))


def test_the_baseline_is_the_mean_of_the_step_before() -> None:
    """After a step the baseline is the mean of that step, so the next step is independent of it."""
    fitted = make_optimizer("diagonal", "pathwise", 8)
    metrics = fitted.step()
    start = DiagonalGaussian(torch.zeros(3, dtype=F64), torch.full((3,), -0.5, dtype=F64))
    expected = float(metrics["variational/elbo"] - start.entropy())
    assert float(fitted.baseline) == pytest.approx(expected)


def test_standard_deviations_are_the_marginals() -> None:
    L = torch.tensor([[1.0, 9.0], [3.0, 4.0]], dtype=F64)  # the upper triangle is not read
    found = standard_deviations(FullGaussian(torch.zeros(2, dtype=F64), L))
    assert found.tolist() == pytest.approx([1.0, 5.0])


def test_a_fit_that_diverges_is_named() -> None:
    """Half the samples make the ELBO infinite; the parameters are unchanged."""

    def broken(z: Tensor) -> Tensor:
        return log_joint(z) / (z[..., 0] > 0)

    fitted = ElboOptimizer(
        broken,
        FAMILIES["diagonal"],
        3,
        estimator="score_function",
        num_samples=8,
        learning_rate=0.01,
        steps=10,
        measurement_interval=0,
        seed=0,
    )
    with pytest.raises(NonFiniteError, match="ELBO"):
        fitted.step()
    assert fitted.parameters["mean"].tolist() == [0.0] * 3
