"""Gauss-Hermite quadrature: exact expectations over standard normal noise.

With the nodes as its noise, an estimator's mean and variance follow without sampling: they are
weighted sums, over the nodes, of its gradients and of their squares.
"""

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.errors import RequestError

MAX_POINTS = 10**7
"""Largest size of the grid."""

MAX_NODES = 370
"""Largest number of nodes in each dimension; NumPy's weights overflow above."""


def gauss_hermite(num_nodes: int, size: int = 1) -> tuple[Tensor, Tensor]:
    """Nodes ``[M, size]`` and weights ``[M]`` for ``E[f(eps)]``, ``eps ~ N(0, I)``; float64.

    ``E[f(eps)] = sum_m w_m f(eps_m)``, exact for polynomials of degree up to ``2 num_nodes - 1`` in
    each variable. The grid is a product grid, ``M = num_nodes^size``.

    Args:
        num_nodes: number of nodes in each dimension, 1 to 370.
        size: number of dimensions of the noise, at least 1.

    Raises:
        RequestError: a number out of its range, or more than ten million points in all.
    """
    if not (1 <= num_nodes <= MAX_NODES and size >= 1 and num_nodes**size <= MAX_POINTS):
        raise RequestError(
            f"{num_nodes} nodes in {size} dimensions cannot be: give 1 to {MAX_NODES} nodes, at "
            f"least one dimension, and at most {MAX_POINTS} points in all"
        )
    x, w = np.polynomial.hermite_e.hermegauss(num_nodes)
    nodes = torch.cartesian_prod(*[torch.from_numpy(x)] * size).reshape(-1, size)
    weights = torch.cartesian_prod(*[torch.from_numpy(w / w.sum())] * size).reshape(-1, size)
    return nodes, weights.prod(1)
