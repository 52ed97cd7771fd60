import math

import torch
from torch import Tensor

from pgtoolkit.envs.control.quaternion import (
    body_z,
    exponential,
    normalized,
    product,
    rotation_matrix,
)

# Of length 0, tiny, on both sides of where the series takes over (0.2 rad), and up to two turns.
LENGTHS = torch.tensor([0.0, 1e-12, 1e-5, 0.1, 0.1999999, 0.2000001, 1.0, math.pi, 12.0]).double()


def rotation_vectors() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    axis = torch.randn(len(LENGTHS), 3, generator=generator).double()
    length = torch.sqrt(axis.square().sum(-1, keepdim=True))
    return LENGTHS.unsqueeze(-1) * axis / length


def jacobian(vectors: Tensor) -> Tensor:
    """The Jacobian of the exponential, ``[N, 4, 3]``."""
    point = vectors.clone().requires_grad_()
    columns = exponential(point).sum(0)
    return torch.stack([torch.autograd.grad(c, point, retain_graph=True)[0] for c in columns], 1)


def random_quaternions(count: int, seed: int) -> Tensor:
    return normalized(torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).double())


def cross_matrix(vector: Tensor) -> Tensor:
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)


def test_the_exponential_is_that_of_the_rotation() -> None:
    vectors = rotation_vectors()
    q = exponential(vectors)
    torch.testing.assert_close(q.norm(dim=-1), torch.ones(len(q)).double(), rtol=0, atol=1e-15)
    expected = torch.linalg.matrix_exp(cross_matrix(vectors))
    torch.testing.assert_close(rotation_matrix(q), expected, rtol=0, atol=1e-13)


def test_the_exponential_has_a_derivative_everywhere() -> None:
    assert torch.autograd.gradcheck(exponential, rotation_vectors().requires_grad_())
    at_zero = jacobian(torch.zeros(1, 3))[0]
    assert at_zero.tolist() == torch.cat([torch.zeros(1, 3), torch.eye(3) / 2]).tolist()


def test_the_derivative_of_the_exponential_in_float32() -> None:
    """Float32 has no cancellation on either side of the point where the series takes over."""
    exact = jacobian(rotation_vectors())
    # sin(h) / h has the derivative (cos h - sin(h) / h) / h: roundings of 2^-24, divided by h =
    # 0.1 where it is used, and times the half length, h itself.
    assert (jacobian(rotation_vectors().float()) - exact).abs().max() < 64 * 2**-24


def test_the_product_turns_twice() -> None:
    p, q, r = (random_quaternions(10, seed) for seed in range(3))
    both = rotation_matrix(product(p, q))
    torch.testing.assert_close(both, rotation_matrix(p) @ rotation_matrix(q))
    torch.testing.assert_close(product(product(p, q), r), product(p, product(q, r)))


def test_the_matrix_is_a_rotation() -> None:
    q = random_quaternions(10, 0)
    matrix = rotation_matrix(q)
    unit = torch.eye(3).double().expand(10, 3, 3)
    torch.testing.assert_close(matrix @ matrix.mT, unit, rtol=0, atol=1e-14)
    assert torch.allclose(torch.linalg.det(matrix), torch.ones(10).double())
    assert torch.equal(matrix[:, :, 2], body_z(q)) and torch.equal(matrix, rotation_matrix(-q))


def test_the_derivative_of_a_normalised_quaternion_is_tangent() -> None:
    q = random_quaternions(5, 0).requires_grad_()
    weight = random_quaternions(5, 1)
    gradient = torch.autograd.grad((weight * normalized(q)).sum(), q)[0]
    along = (gradient * q).sum(-1)
    torch.testing.assert_close(along, torch.zeros(5).double(), rtol=0, atol=1e-15)
    torch.testing.assert_close(gradient, weight - (weight * q).sum(-1, keepdim=True) * q)
