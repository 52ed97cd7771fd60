"""The cost of a linear policy on a linear-quadratic-Gaussian system, and its exact gradient.

With ``z = [s; 1]`` and ``Kz = [K k]`` the policy ``u = K s + k + sigma eps`` is ``u = Kz z + sigma
eps``, and the closed loop is ``z' = F z + noise``, ``F = Az + Bz Kz``, with noise covariance ``G =
W + B diag(sigma^2) B'``. Two recursions carry everything: second moments ``S_t = E[z_t z_t']``
forwards, and quadratic cost-to-go ``V_t`` backwards. Both, and the gradient, are those of Fazel et
al. (2018) with an offset, exploration, a discount and a finite horizon.
"""

import dataclasses
from typing import NamedTuple, final

import torch
from torch import Tensor


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinearQuadratic:
    """``s' = As + Bu + w``; cost ``sum_t gamma^t (s'Qs + u'Ru) + gamma^H s_H'Qf s_H``; float64."""

    A: Tensor
    """``[n, n]``."""
    B: Tensor
    """``[n, m]``."""
    Q: Tensor
    """``[n, n]``."""
    R: Tensor
    """``[m, m]``."""
    Qf: Tensor
    """``[n, n]``."""
    m0: Tensor
    """``[n]``."""
    P0: Tensor
    """``[n, n]``."""
    W: Tensor
    """``[n, n]``."""
    horizon: int
    gamma: float


class LQGGradient(NamedTuple):
    K: Tensor
    """``[m, n]``."""
    k: Tensor
    """``[m]``."""
    sigma: Tensor
    """``[m]``."""


def second_moments(system: LinearQuadratic, F: Tensor, G: Tensor) -> list[Tensor]:
    """``S_0 .. S_H``, ``[n+1, n+1]`` each: ``S_0 = E[z_0 z_0']``, ``S_{t+1} = F S_t F' + G``."""
    m0 = system.m0
    start = augmented(system.P0 + torch.outer(m0, m0), corner=1.0)
    start[:-1, -1] = m0
    start[-1, :-1] = m0
    moments = [start]
    for _ in range(system.horizon):
        moments.append(F @ moments[-1] @ F.T + G)
    return moments


def cost_to_go(system: LinearQuadratic, F: Tensor, Kz: Tensor) -> list[Tensor]:
    """``V_0 .. V_H``, ``[n+1, n+1]`` each.

    ``V_H = Qf``, ``V_t = Q + Kz' R Kz + gamma F' V_{t+1} F``.
    """
    stage = augmented(system.Q) + Kz.T @ system.R @ Kz
    values = [augmented(system.Qf)]
    for _ in range(system.horizon):
        values.append(stage + system.gamma * F.T @ values[-1] @ F)
    return values[::-1]


def expected_cost(system: LinearQuadratic, K: Tensor, k: Tensor, sigma: Tensor) -> float:
    """``tr(V_0 S_0) + sum_t gamma^t [sum_i sigma_i^2 R_ii + gamma tr(V_{t+1} G)]``."""
    Kz, F, G = closed_loop(system, K, k, sigma)
    values, start = cost_to_go(system, F, Kz), second_moments(system, F, G)[0]
    exploration = (sigma.square() * system.R.diagonal()).sum()
    cost = (values[0] * start).sum()
    for t, value in enumerate(values[1:]):
        cost = cost + system.gamma**t * (exploration + system.gamma * (value * G).sum())
    return float(cost)


def cost_gradient(system: LinearQuadratic, K: Tensor, k: Tensor, sigma: Tensor) -> LQGGradient:
    """The derivative of :func:`expected_cost`.

    ``dJ/dKz = 2 sum_t gamma^t (R Kz + gamma Bz' V_{t+1} F) S_t`` and
    ``dJ/dsigma_i = 2 sigma_i sum_t gamma^t [R + gamma Bz' V_{t+1} Bz]_ii``.
    """
    Kz, F, G = closed_loop(system, K, k, sigma)
    Bz = torch.cat([system.B, torch.zeros_like(system.B[:1])])
    by_feedback, by_sigma = torch.zeros_like(Kz), torch.zeros_like(sigma)
    moments, values = second_moments(system, F, G), cost_to_go(system, F, Kz)
    for t in range(system.horizon):
        discount, following = system.gamma**t, system.gamma * Bz.T @ values[t + 1]
        by_feedback += 2 * discount * (system.R @ Kz + following @ F) @ moments[t]
        by_sigma += 2 * discount * sigma * (system.R + following @ Bz).diagonal()
    return LQGGradient(by_feedback[:, :-1], by_feedback[:, -1], by_sigma)


def closed_loop(
    system: LinearQuadratic, K: Tensor, k: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``Kz`` ``[m, n+1]``, ``F`` and ``G`` ``[n+1, n+1]``."""
    Kz = torch.cat([K, k.unsqueeze(-1)], -1)
    F = augmented(system.A, corner=1.0)
    F[:-1] += system.B @ Kz
    G = augmented(system.W + system.B @ (sigma.square().unsqueeze(-1) * system.B.T))
    return Kz, F, G


def augmented(matrix: Tensor, corner: float = 0.0) -> Tensor:
    """The matrix with one more row and column of zeros, and ``corner`` where they meet."""
    larger = matrix.new_zeros(matrix.shape[0] + 1, matrix.shape[1] + 1)
    larger[:-1, :-1] = matrix
    larger[-1, -1] = corner
    return larger
