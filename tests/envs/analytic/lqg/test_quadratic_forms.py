import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.quadratic_forms import (
    add_constant,
    affine_product,
    conditional_expectation,
    expectation,
    joint_cumulant,
    joint_moment,
    product_covariance,
    set_partitions,
)


def random_forms(*shape: int, seed: int = 0) -> Tensor:
    """``[*shape, 3, 3]``: two noise variables."""
    generator = torch.Generator().manual_seed(seed)
    form = torch.randn(*shape, 3, 3, generator=generator, dtype=torch.float64)
    return (form + form.mT) / 2


def hermite_grid() -> tuple[Tensor, Tensor]:
    """Points ``[P, 3]`` ``[1, xi_1, xi_2]`` and weights ``[P]``: exact to degree 23 in each."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    weights = weights / weights.sum()
    points = [[1.0, x, y] for x, y in itertools.product(nodes, nodes)]
    return torch.tensor(points, dtype=torch.float64), torch.tensor(
        np.outer(weights, weights)
    ).ravel()


def evaluate(form: Tensor, points: Tensor) -> Tensor:
    return torch.einsum("pi,...ij,pj->...p", points, form, points)


def quadrature_moment(*forms: Tensor) -> Tensor:
    points, weights = hermite_grid()
    return (math.prod(evaluate(form, points) for form in forms) * weights).sum(-1)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_moments_against_quadrature(order: int) -> None:
    forms = random_forms(order, 5)
    exact = joint_moment(*forms)
    assert exact.shape == (5,)
    assert torch.allclose(exact, quadrature_moment(*forms), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_cumulants_against_quadrature(order: int) -> None:
    """The other way round: ``kappa = sum_partitions (-1)^(b-1) (b-1)! prod E[block]``."""
    forms = random_forms(order, 5)
    total = torch.zeros(5, dtype=torch.float64)
    for partition in set_partitions(range(order)):
        blocks = [quadrature_moment(*(forms[i] for i in block)) for block in partition]
        sign = (-1) ** (len(blocks) - 1) * math.factorial(len(blocks) - 1)
        total = total + sign * math.prod(blocks)
    assert torch.allclose(joint_cumulant(*forms), total, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize(("order", "cumulant"), [(1, 1.0), (2, 2.0), (3, 8.0), (4, 48.0)])
def test_cumulants_of_a_square(order: int, cumulant: float) -> None:
    """Chi-squared with one degree of freedom: ``2^(r-1) (r-1)!``."""
    xi = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert joint_cumulant(*[affine_product(xi, xi)] * order).item() == cumulant


def test_product_covariance_against_quadrature() -> None:
    a, b, c, d = random_forms(4, 5)
    truth = quadrature_moment(a, b, c, d) - quadrature_moment(a, b) * quadrature_moment(c, d)
    assert torch.allclose(product_covariance(a, b, c, d), truth, rtol=1e-12, atol=1e-10)


def test_product_covariance_keeps_its_digits_beside_a_large_mean() -> None:
    """``Var(1e9 + xi) = 1``, where ``E[q^2] - E[q]^2`` in float64 gives 0."""
    one, q = torch.zeros(2, 2, 2, dtype=torch.float64)
    one[0, 0], q[0, 0] = 1.0, 1e9
    q[0, 1] = q[1, 0] = 0.5
    assert product_covariance(one, q, one, q).item() == 1.0
    assert (joint_moment(q, q) - joint_moment(q) ** 2).item() == 0.0


def test_leading_dimensions_broadcast() -> None:
    first, second = random_forms(2, 4), random_forms(2, 3, seed=1)
    grid = product_covariance(*(f.unsqueeze(1) for f in first), *second)
    assert grid.shape == (4, 3)
    single = product_covariance(first[0, 2], first[1, 2], second[0, 1], second[1, 1])
    assert grid[2, 1].item() == pytest.approx(single.item(), rel=1e-12)


def test_affine_product_and_constant() -> None:
    points, _ = hermite_grid()
    first, second = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.0, 4.0]], dtype=torch.float64)
    values = evaluate(add_constant(affine_product(first, second), 3.0), points)
    assert torch.allclose(values, (points @ first) * (points @ second) + 3)


def test_conditional_expectation() -> None:
    """It equals quadrature over the unknown variable, at three values of the known one."""
    form = random_forms(4)
    conditional = conditional_expectation(form, torch.tensor([True, False, True]))
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    for known in (-1.5, 0.0, 2.0):
        points = torch.tensor([[1.0, x, known] for x in nodes], dtype=torch.float64)
        truth = evaluate(form, points) @ torch.tensor(weights / weights.sum())
        for unknown in (0.0, 7.0):
            point = torch.tensor([[1.0, unknown, known]], dtype=torch.float64)
            assert torch.allclose(evaluate(conditional, point)[:, 0], truth)
    assert torch.allclose(expectation(conditional), expectation(form))


def test_set_partitions() -> None:
    """The Bell numbers, each partition once, of all items."""
    for items, count in enumerate((1, 1, 2, 5, 15, 52)):
        partitions = [tuple(sorted(p)) for p in set_partitions(range(items))]
        assert len(partitions) == len(set(partitions)) == count
        assert all(sorted(itertools.chain(*p)) == list(range(items)) for p in partitions)
