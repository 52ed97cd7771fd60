"""Exact moments of quadratic forms of Gaussian noise.

A *form* is a quadratic of ``xi ~ N(0, I_D)``, stored as one symmetric matrix ``M`` ``[1+D, 1+D]``::

    q = x' M x,   x = [1; xi],   M = [[c, beta'], [beta, A]]:   q = c + 2 beta' xi + xi' A xi

An affine function ``l' x`` is stored as a vector ``l`` ``[1+D]``. So a sum of forms is a sum of
matrices, and the quadratic ``y' Q y`` of an affine ``y = L x`` is the form ``L' Q L``. The
functions below take batches of forms and broadcast over all dimensions but the last two.

The joint cumulants have a closed form (Mathai and Provost 1992), and moments are sums of products
of cumulants over set partitions (McCullagh 1987, chapters 2 and 3).
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Partition: TypeAlias = list[tuple[int, ...]]


def affine_product(first: Tensor, second: Tensor) -> Tensor:
    """The form ``(l' x)(m' x)`` ``[..., 1+D, 1+D]`` of two affine functions ``[..., 1+D]``."""
    outer = first.unsqueeze(-1) * second.unsqueeze(-2)
    return (outer + outer.mT) / 2


def expectation(form: Tensor) -> Tensor:
    """``E[q] = c + tr A`` ``[...]``, which is the trace of the whole matrix."""
    return form.diagonal(dim1=-2, dim2=-1).sum(-1)


def add_constant(form: Tensor, constant: Tensor | float) -> Tensor:
    """The form ``q + constant`` ``[..., 1+D, 1+D]``.

    Args:
        form: ``[..., 1+D, 1+D]``.
        constant: ``[...]``.
    """
    larger = form.clone()
    larger[..., 0, 0] += constant
    return larger


def conditional_expectation(form: Tensor, known: Tensor) -> Tensor:
    """``E[q | the known coordinates]`` ``[..., 1+D, 1+D]``.

    The other coordinates have mean zero, variance one and no correlation with the known ones. So
    the terms of ``q`` that contain them are replaced by a constant, the sum of the diagonal of
    ``A`` over them.

    Args:
        form: ``[..., 1+D, 1+D]``.
        known: ``[..., 1+D]`` bool; the first entry, of the constant 1, must be true.
    """
    kept = form * (known.unsqueeze(-1) & known.unsqueeze(-2))
    return add_constant(kept, expectation(form) - expectation(kept))


def joint_cumulant(*forms: Tensor) -> Tensor:
    """``kappa(q_1, .., q_r)`` ``[...]`` of forms on the same noise.

    ::

        kappa = 2^(r-1) [ sum_cycles tr(A A .. A) + sum_orders beta' A .. A beta ],   r >= 2

    over the ``(r-1)!`` cyclic orders and the ``r!`` orders of the forms. With one form it is the
    mean, with two the covariance. A cycle or an order has the same term as its reverse, because the
    matrices are symmetric; so each pair is computed once.

    Args:
        forms: ``[..., 1+D, 1+D]`` each, symmetric; the leading dimensions broadcast.
    """
    count = len(forms)
    if count == 1:
        return expectation(forms[0])
    A = [form[..., 1:, 1:] for form in forms]
    beta = [form[..., 1:, 0] for form in forms]
    # A cycle of two is its own reverse.
    total = (A[0] * A[1]).sum((-2, -1)) / 2 if count == 2 else A[0].new_zeros(())
    for order in one_direction(itertools.permutations(range(1, count))):
        total = total + _trace([A[0], *(A[i] for i in order)])
    for order in one_direction(itertools.permutations(range(count))):
        vector = beta[order[0]]
        for i in order[1:-1]:
            vector = (A[i] @ vector.unsqueeze(-1)).squeeze(-1)
        total = total + (vector * beta[order[-1]]).sum(-1)
    return 2.0**count * total


def joint_moment(*forms: Tensor) -> Tensor:
    """``E[q_1 .. q_r]`` ``[...]``: the sum over set partitions of products of joint cumulants.

    Args:
        forms: ``[..., 1+D, 1+D]`` each, symmetric; the leading dimensions broadcast.
    """
    return _partition_sum(forms, list(set_partitions(range(len(forms)))))


def product_covariance(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """``Cov(a b, c d)`` ``[...]`` of four forms.

    The sum is over the 11 of 15 set partitions that have a block with members of both pairs. The
    other four sum to ``E[a b] E[c d]`` (Leonov and Shiryaev 1959). Omitting them, instead of
    subtracting the product afterwards, avoids the cancellation. The forms ``[..., 1+D, 1+D]`` are
    symmetric, and their leading dimensions broadcast.

    Args:
        a: the first member of the first pair.
        b: the second member of the first pair.
        c: the first member of the second pair.
        d: the second member of the second pair.
    """
    joining = [
        partition
        for partition in set_partitions(range(4))
        if any(min(block) < 2 <= max(block) for block in partition)
    ]
    return _partition_sum((a, b, c, d), joining)


def set_partitions(items: Sequence[int]) -> Iterator[Partition]:
    """All ways to split the items into blocks: 1, 2, 5, 15 for one to four items."""
    if not items:
        yield []
        return
    head, rest = items[0], items[1:]
    for partition in set_partitions(rest):
        yield [(head,), *partition]
        for i, block in enumerate(partition):
            yield [*partition[:i], (head, *block), *partition[i + 1 :]]


def one_direction(orders: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """One of each order and its reverse. Orders of one item are dropped."""
    return (order for order in orders if order[0] < order[-1])


def _partition_sum(forms: Sequence[Tensor], partitions: Sequence[Partition]) -> Tensor:
    blocks = {block for partition in partitions for block in partition}
    cumulant = {block: joint_cumulant(*(forms[i] for i in block)) for block in blocks}
    products = [math.prod(cumulant[block] for block in partition) for partition in partitions]
    return torch.as_tensor(sum(products))


def _trace(matrices: Sequence[Tensor]) -> Tensor:
    """``tr(A_1 .. A_r)``, ``r >= 3``, with ``r - 2`` products of matrices."""
    left, right = matrices[0] @ matrices[1], matrices[2]
    for matrix in matrices[3:]:
        right = right @ matrix
    return (left * right.mT).sum((-2, -1))
