"""Statistics of gradients that are given by two factors are those of the gradients themselves."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.diagnostics.moments import TrajectoryMoments
from pgtoolkit.diagnostics.outer_products import (
    OuterProducts,
    SampleGradient,
    concatenated,
    dense,
    difference,
    num_parameters,
    num_samples,
    scaled,
)
from pgtoolkit.diagnostics.paired import PairStatistics
from pgtoolkit.diagnostics.statistics import GradientStatistics

Gradients = dict[str, SampleGradient]
OUT, IN = 5, 7


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def products(n: int, seed: int = 0, mean: float = 0.7) -> OuterProducts:
    return OuterProducts(mean + normal(n, OUT, seed=seed), 0.3 + normal(n, IN, seed=seed + 1))


def gradients_of(n: int, seed: int = 0) -> Gradients:
    """Two weights by their factors, with arrays between and after them."""
    return {
        "first": products(n, seed),
        "bias": 0.2 + normal(n, OUT, seed=seed + 2),
        "second": products(n, seed + 3, mean=-1.5),
        "log_std": normal(n, 2, seed=seed + 5),
    }


def all_dense(gradients: Gradients) -> Gradients:
    return {name: dense(gradient) for name, gradient in gradients.items()}


@pytest.mark.parametrize("n", [3, 17, 64, 100, 333])
def test_moments_are_those_of_the_arrays(n: int) -> None:
    gradients = gradients_of(n)
    found, expected = (TrajectoryMoments.of(g) for g in (gradients, all_dense(gradients)))
    assert list(found.parameter_squares) == list(gradients)
    for name in gradients:
        torch.testing.assert_close(found.parameter_squares[name], expected.parameter_squares[name])
    for name in ("mean", "projections", "squared_covariance", "squared_mean", "squares"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("same_inputs", [True, False])
def test_pairs_are_those_of_the_arrays(same_inputs: bool) -> None:
    """With the same inputs, as in one forward pass, the difference is one of factors too."""
    first, second = gradients_of(200), gradients_of(200, seed=20)
    if same_inputs:
        for name, gradient in first.items():
            other = second[name]
            if isinstance(gradient, OuterProducts) and isinstance(other, OuterProducts):
                second[name] = other._replace(inputs=gradient.inputs)
    assert isinstance(difference(first["first"], second["first"]), OuterProducts) == same_inputs

    def compared(first: Gradients, second: Gradients) -> PairStatistics:
        both = GradientStatistics.of(first), GradientStatistics.of(second)
        return PairStatistics.of(first, second, both)

    found, expected = compared(first, second), compared(all_dense(first), all_dense(second))
    assert bool(torch.isfinite(expected.cosine_low))
    for name in ("log_ratio", "log_ratio_low", "cosine", "cosine_low", "cosine_high"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    torch.testing.assert_close(found.difference.signal, expected.difference.signal)


def test_a_mean_that_is_far_larger_than_the_deviations_costs_no_digits() -> None:
    """Float32 factors around 1, deviations of 1e-3: the squares are those of an exact sum."""
    delta = (1 + 1e-3 * normal(50, OUT, seed=0)).float()
    single = OuterProducts(delta, torch.ones(50, IN))
    exact = OuterProducts(delta.double(), torch.ones(50, IN, dtype=torch.float64)).dense
    centred = (exact - exact.mean(0)).square().sum((1, 2))
    found = TrajectoryMoments.of({"weight": single})
    torch.testing.assert_close(found.squares, centred, rtol=1e-8, atol=0)


def test_equal_gradients_have_no_variance_at_all() -> None:
    row = products(1)
    same = OuterProducts(*(x.float().expand(40, -1) for x in row))
    found = GradientStatistics.of({"weight": same})
    assert float(found.variance) == 0
    torch.testing.assert_close(found.mean, row.dense.float().double().flatten(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_sizes_beyond_the_squares_of_float32(size: float) -> None:
    gradients: Gradients = {"weight": products(30)}
    large: Gradients = {"weight": OuterProducts(*(x.float() for x in products(30))).scaled(size)}
    found, expected = GradientStatistics.of(large), GradientStatistics.of(gradients)
    ratio = float(found.variance / expected.variance)
    assert math.log10(ratio) == pytest.approx(2 * math.log10(size), abs=1e-5)
    assert bool(torch.isfinite(found.squared_covariance))


def test_the_parts_of_several_minibatches_are_put_together() -> None:
    one, two = products(4), products(6, seed=3)
    joined = concatenated([one, two])
    assert isinstance(joined, OuterProducts) and num_samples(joined) == 10
    assert torch.equal(dense(joined), torch.cat([one.dense, two.dense]))
    assert torch.equal(dense(concatenated([one, two.dense])), dense(joined))
    assert num_parameters(joined) == num_parameters(joined.dense) == OUT * IN


def test_a_scaled_product_is_the_product_scaled() -> None:
    one = products(4)
    torch.testing.assert_close(dense(scaled(one, -2.5)), -2.5 * one.dense)
    assert torch.equal(dense(scaled(one.dense, -2.5)), -2.5 * one.dense)
