"""Exact expectations over standard normal noise: nodes instead of samples.

Fed to an estimator as its noise, they give its mean and variance without sampling: the sum over
nodes, by weight, of the gradients and of their squares.
"""

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.errors import RequestError

MAX_POINTS = 10**7

MAX_NODES = 370
"""Beyond it NumPy's nodes overflow."""


def gauss_hermite(num_nodes: int, size: int = 1) -> tuple[Tensor, Tensor]:
    """Nodes ``[M, size]`` and weights ``[M]`` of ``E[f(eps)]``, ``eps ~ N(0, I)``; float64.

    ``E[f(eps)] = sum_m w_m f(eps_m)``, exact for polynomials of degree up to ``2 num_nodes - 1`` in
    each variable. The grid is a product, ``M = num_nodes^size``.

    Args:
        num_nodes: in each dimension.
        size: dimensions of the noise.

    Raises:
        RequestError: no nodes or more than 370, no dimensions, or more than ten million points.
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
