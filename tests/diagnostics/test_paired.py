"""Statistics of two estimators on the same trajectories, with their intervals."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pgtoolkit.diagnostics.intervals import Deviations, signal_interval
from pgtoolkit.diagnostics.paired import PairStatistics, cosine
from pgtoolkit.diagnostics.statistics import GradientStatistics

F64 = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=F64)


def compared(first: Tensor, second: Tensor) -> PairStatistics:
    both = GradientStatistics.of({"p": first}), GradientStatistics.of({"p": second})
    return PairStatistics.of({"p": first}, {"p": second}, both)


def test_cosine_of_mean_gradients() -> None:
    """(1, 0) and (1, 1): 1 / sqrt 2; of opposite ones -1; over all parameters together."""
    one = {"a": torch.tensor([[2.0], [0.0], [1.0]]), "b": torch.tensor([[1.0], [-1.0], [0.0]])}
    two = {"a": torch.ones(3, 1), "b": torch.ones(3, 1)}
    first, second = (GradientStatistics.of(gradients).mean for gradients in (one, two))
    assert float(cosine(first, second)) == pytest.approx(1 / math.sqrt(2))
    assert float(cosine(first, -first)) == pytest.approx(-1)


@pytest.mark.parametrize("n", [16, 64, 256])
@pytest.mark.parametrize("shared", [0.0, 0.95])
def test_the_interval_of_the_ratio_covers_the_truth(n: int, shared: float) -> None:
    """Normal gradients in ten dimensions, V_1 / V_2 = 4, correlated or not: 95 % or more.

    Less 4 binomial standard errors of 300 batches (5 %). With a correlation of 0.95 the paired
    interval is narrower than that of independent estimators.
    """
    generator = seeded(n)
    inside, widths = [], []
    for _ in range(300):
        one, two = normal(n, 10, generator=generator), normal(n, 10, generator=generator)
        pair = compared(2 * one, shared * one + math.sqrt(1 - shared**2) * two)
        low, high = float(pair.log_ratio_low), float(pair.log_ratio_high)
        inside.append(low <= math.log(4) <= high)
        widths.append(high - low)
    assert np.mean(inside) > 0.9
    # Twice 1.96 standard errors of log V, sqrt(2 / (N P)), of two independent variances.
    independent = 2 * 1.96 * math.sqrt(2 * 2 / (10 * n))
    if n == 256:
        assert np.median(widths) < (0.8 if shared else 1.5) * independent


def test_the_ratio_of_equal_estimators_is_one_with_hardly_any_doubt() -> None:
    """Estimators whose gradients are equal up to sign have the same variance on every trajectory.

    What remains of the interval is the allowance for a tail that was not seen.
    """
    one = normal(1000, 10, generator=seeded(0))
    pair = compared(one, -one)
    assert float(pair.log_ratio) == 0
    assert -0.05 < float(pair.log_ratio_low) < 0 < float(pair.log_ratio_high) < 0.05


def test_no_variance_has_no_ratio() -> None:
    one = normal(20, 3, generator=seeded(0))
    pair = compared(one, torch.ones_like(one))
    assert math.isnan(float(pair.log_ratio)) and math.isnan(float(pair.log_ratio_high))
    assert math.isfinite(float(pair.difference.signal))


def test_a_heavy_tail_widens_the_ratio_but_a_factor_of_a_million_is_beyond_doubt() -> None:
    """``exp(3 x)``, of which 100 draws show a few: the ratio to a hundredth of it stays open."""
    generator = seeded(0)
    heavy, light = (
        (3 * normal(100, 1, generator=generator)).exp(),
        normal(100, 1, generator=generator),
    )
    scale = float(heavy.std())
    open_one, closed = compared(heavy, 0.5 * scale * light), compared(heavy, 1e-4 * scale * light)
    assert float(open_one.log_ratio_low) < 0 < float(open_one.log_ratio_high)
    assert float(closed.log_ratio_low) > 0


def test_the_interval_of_the_cosine_is_that_of_the_turning_gradients() -> None:
    """The gradients whose signal is 2 - 2 cos, made one by one, have the same interval.

    In one effective dimension the bound of the squared covariance is the largest possible one.
    """
    generator = seeded(5)
    noise = normal(50, 1, generator=generator) * torch.tensor([[1.0, 2.0, -1.0]], dtype=F64)
    first, second = noise + 4, 0.3 * noise + torch.tensor([4.0, 3.0, 2.0], dtype=F64)
    pair, parts, roots = compared(first, second), [], 0.0
    for g in (first, second):
        mean = g.mean(0)
        u, norm = mean / mean.norm(), mean.norm()
        centred = g - mean
        parts.append(u + (centred - (centred @ u).unsqueeze(1) * u) / norm)
        found = GradientStatistics.of({"p": g})
        roots += float(found.squared_covariance) ** 0.25 / float(norm)
    turning = parts[0] - parts[1]
    deviations = turning - turning.mean(0)
    bound = torch.tensor(roots**4, dtype=F64)
    mean = turning.mean(0)
    made = Deviations.of(deviations.square().sum(1), deviations @ mean, bound)
    low, high = signal_interval(made, mean @ mean)
    assert float(pair.cosine_low) == pytest.approx(1 - float(high) / 2, abs=1e-10)
    assert float(pair.cosine_high) == pytest.approx(1 - float(low) / 2, abs=1e-10)


@pytest.mark.parametrize("angle", [0.0, 0.5, 2.0])
def test_the_interval_of_the_cosine_covers_the_truth(angle: float) -> None:
    """Two means of length 1 at an angle, in ten dimensions with noise: 95 % or more.

    Less 4 binomial standard errors of 300 batches. Parallel means are the ordinary case, in which
    the measured cosine is always too small.
    """
    generator, inside = seeded(1), []
    a, b = torch.zeros(2, 10, dtype=F64)
    a[0], b[0], b[1] = 1.0, math.cos(angle), math.sin(angle)
    for _ in range(300):
        noise = normal(2, 200, 10, generator=generator)
        pair = compared(a + noise[0], b + 0.5 * noise[0] + noise[1])
        inside.append(float(pair.cosine_low) <= math.cos(angle) <= float(pair.cosine_high))
    assert np.mean(inside) > 0.9
