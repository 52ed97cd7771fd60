"""The cost, its exact gradient and the value functions of a linear policy on a linear system.

With ``z = [s; 1]`` and ``Kz = [K k]`` the policy ``u = K s + k + sigma eps`` is ``u = Kz z + sigma
eps``, and the closed loop is ``z' = F z + noise``, ``F = Az + Bz Kz``, with noise covariance ``G =
W + B diag(sigma^2) B'``. Everything follows from two recursions: second moments ``S_t = E[z_t
z_t']`` forwards, and quadratic cost-to-go ``V_t`` backwards. Both, and the gradient, are those of
Fazel et al. (2018) with an offset, exploration, a discount and a finite horizon.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.system import LinearPolicy, LinearQuadratic
from pgtoolkit.shapes import check_shape


class LQGGradient(NamedTuple):
    """One number for each entry of a policy's parameters, such as a derivative by it."""

    K: Tensor
    """``[m, n]``."""
    k: Tensor
    """``[m]``."""
    sigma: Tensor
    """``[m]``."""


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


def state_value(
    system: LinearQuadratic, policy: LinearPolicy, position: Tensor, time: Tensor
) -> Tensor:
    """The value ``V_t(s)`` ``[N]`` of states at times ``t`` of their own, in the position's dtype.

    Args:
        system: ``n`` states.
        policy: the policy that is followed from there.
        position: ``s`` ``[N, n]``.
        time: ``t`` ``[N]`` integers; from the horizon on the value is 0.
    """
    check_shape("position", position, None, len(system.m0))
    check_shape("time", time, len(position))
    matrices = value_matrices(system, policy).to(position)[time.clamp(max=system.horizon)]
    z = torch.cat([position, torch.ones_like(position[:, :1])], -1)
    return torch.einsum("ni,nij,nj->n", z, matrices, z)


def action_value(
    system: LinearQuadratic, policy: LinearPolicy, position: Tensor, action: Tensor, time: Tensor
) -> Tensor:
    """The value ``Q_t(s, u)`` ``[N]`` of actions in states at times ``t`` of their own.

    Args:
        system: ``n`` states and ``m`` actions.
        policy: the policy that is followed after the action.
        position: ``s`` ``[N, n]``.
        action: ``u`` ``[N, m]``.
        time: ``t`` ``[N]`` integers; from the horizon on the value is 0.
    """
    check_shape("position", position, None, len(system.m0))
    check_shape("action", action, len(position), len(policy.sigma))
    check_shape("time", time, len(position))
    q = action_value_matrices(system, policy)
    matrices = torch.cat([q, torch.zeros_like(q[:1])]).to(position)
    y = torch.cat([position, torch.ones_like(position[:, :1]), action], -1)
    return torch.einsum("ni,nij,nj->n", y, matrices[time.clamp(max=system.horizon)], y)


def action_value_matrices(system: LinearQuadratic, policy: LinearPolicy) -> Tensor:
    """``N_t`` ``[H, n+1+m, n+1+m]`` of the exact value ``Q_t(s, u) = [s; 1; u]' N_t [s; 1; u]``.

    ``Q_t = -s' Q s - u' R u + gamma E[V_{t+1}(A s + B u + w)]``, where ``V_H`` is minus the
    terminal cost, which the last reward includes.
    """
    n, m = system.B.shape
    values = value_matrices(system, policy)
    values[-1] = -augmented(system.Qf)
    step = system.A.new_zeros(n + 1, n + 1 + m)
    step[:n, :n], step[n, n], step[:n, n + 1 :] = system.A, 1.0, system.B
    matrices = system.gamma * step.T @ values[1:] @ step
    matrices[:, :n, :n] -= system.Q
    matrices[:, n + 1 :, n + 1 :] -= system.R
    matrices[:, n, n] += system.gamma * (values[1:, :n, :n] * system.W).sum((-2, -1))
    return matrices


def value_matrices(system: LinearQuadratic, policy: LinearPolicy) -> Tensor:
    """``M_t`` ``[H+1, n+1, n+1]``: ``V_t(s) = [s; 1]' M_t [s; 1]`` is the exact value, ``M_H = 0``.

    It is minus the cost-to-go, with the cost of future noise added in the corner: ``c_t = sum_i
    sigma_i^2 R_ii + gamma [tr(V_{t+1} G) + c_{t+1}]``. The terminal cost is part of the last
    reward, so the value after it is 0.
    """
    Kz, F, G = closed_loop(system, *policy)
    matrices = torch.stack(cost_to_go(system, F, Kz))
    exploration = (policy.sigma.square() * system.R.diagonal()).sum()
    constant = torch.zeros_like(exploration)
    for t in reversed(range(system.horizon)):
        constant = exploration + system.gamma * ((matrices[t + 1] * G).sum() + constant)
        # The product with G above is not changed by this corner, because that of G is 0.
        matrices[t, -1, -1] += constant
    matrices[-1] = 0.0
    return -matrices


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
