"""The median of a beta distribution in torch operations alone, for graphs that leave Python.

:mod:`pgtoolkit.distributions.beta_quantile` has every quantile, from SciPy, which no exported graph
can call.
"""

import functools

import numpy as np
import torch
from torch import Tensor

NUM_NODES = 64
"""Nodes of the Gauss-Legendre rule of either half. Its error is below 1e-13."""

NUM_STEPS = 5
"""Newton steps. The first guess of the logit is within 0.04, and each step squares the error."""


def beta_median(alpha: Tensor, beta: Tensor) -> Tensor:
    """The ``x`` with ``I_x(alpha, beta) = 1/2``, to about 1e-12; float64.

    ``t = log(x / (1 - x))`` has the log density ``h(t) = alpha t - (alpha + beta) log(1 + e^t)``,
    which is concave and has exponential tails. With ``L`` and ``R`` the integrals of
    ``exp(h(s) - h(t))`` over ``s`` left and right of ``t``, the distribution function is
    ``L / (L + R)`` and the density ``1 / (L + R)``, so that a Newton step towards one half is
    ``t + (R - L) / 2``. The first guess is ``(alpha - 1/3) / (alpha + beta - 2/3)`` (Kerman 2011).

    Args:
        alpha: ``[..., A]``, at least 1.
        beta: ``[..., A]``, at least 1.

    Returns:
        ``[..., A]`` in (0, 1).
    """
    a, b = alpha.double().unsqueeze(-1), beta.double().unsqueeze(-1)
    t = torch.log(a - 1 / 3) - torch.log(b - 1 / 3)
    deviation = torch.sqrt(1 / a + 1 / b)
    for _ in range(NUM_STEPS):
        left = _tail(a, b, t, -(9 * deviation + 30 / a))
        right = _tail(a, b, t, 9 * deviation + 30 / b)
        t = t + 0.5 * (right - left)
    return (1 / (1 + torch.exp(-t))).squeeze(-1)


def _tail(a: Tensor, b: Tensor, t: Tensor, extent: Tensor) -> Tensor:
    """The integral of ``exp(h(t + s) - h(t))`` over ``s`` between 0 and ``extent``.

    Beyond the extent, which has the sign of the tail, it is below 1e-13 of the whole.
    """
    nodes, weights = (torch.from_numpy(x) for x in _unit_rule())
    shift = extent * nodes
    exponent = a * shift - (a + b) * (_softplus(t + shift) - _softplus(t))
    return extent.abs() * (torch.exp(exponent) * weights).sum(-1, keepdim=True)


@functools.cache
def _unit_rule() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss-Legendre rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NUM_NODES)
    return 0.5 * (nodes + 1), 0.5 * weights


def _softplus(t: Tensor) -> Tensor:
    """``log(1 + e^t)`` in functions that every runtime has for float64."""
    return t.clamp_min(0) + torch.log1p(torch.exp(-t.abs()))
