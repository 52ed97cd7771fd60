"""An episode of a linear policy on a linear-quadratic system, as functions of its noise.

All noise of an episode is one vector ``xi ~ N(0, I)``: first that of the start, then for each step
that of the action and that of the dynamics. States, actions and the derivative of the return by an
action are affine in ``xi``; rewards, values, advantages and scores are quadratic. The former are
stored as vectors, the latter as matrices, as described in
:mod:`pgtoolkit.envs.analytic.lqg.quadratic_forms`. ``H`` is the horizon, ``X = 1 + D`` the length
of ``[1; xi]``.
"""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.system import LinearPolicy, LinearQuadratic, psd_root


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinearTrajectory:
    """States and actions of an episode as affine functions of its noise, linear in ``[1; xi]``."""

    state: Tensor
    """``[H+1, n, X]`` the states ``s_0 .. s_H``."""
    action: Tensor
    """``[H, m, X]`` the actions ``u_t``."""
    exploration: Tensor
    """``[H, m, X]`` the actions' noise ``eps_t``."""
    known: Tensor
    """``[H, X]`` bool: the noise that ``s_t`` and ``u_t`` depend on, all before ``w_t``."""


def linear_trajectory(system: LinearQuadratic, policy: LinearPolicy) -> LinearTrajectory:
    """The trajectory under the policy. Noise of variance 0 (a singular covariance) is omitted."""
    K, k, sigma = policy
    start_root, noise_root = _noise_columns(system.P0), _noise_columns(system.W)
    m, H = len(sigma), system.horizon
    starts, per_step = start_root.shape[1], m + noise_root.shape[1]
    basis = torch.eye(1 + starts + H * per_step, dtype=sigma.dtype)
    one, start = basis[0], basis[1 : 1 + starts]
    steps = basis[1 + starts :].reshape(H, per_step, -1)
    exploration, process = steps[:, :m], steps[:, m:]
    states, actions = [torch.outer(system.m0, one) + start_root @ start], []
    for t in range(H):
        u = K @ states[t] + torch.outer(k, one) + sigma.unsqueeze(-1) * exploration[t]
        actions.append(u)
        states.append(system.A @ states[t] + system.B @ u + noise_root @ process[t])
    coordinate = torch.arange(len(basis))
    first_unknown = 1 + starts + per_step * torch.arange(H).unsqueeze(-1) + m
    return LinearTrajectory(
        state=torch.stack(states),
        action=torch.stack(actions),
        exploration=exploration,
        known=coordinate < first_unknown,
    )


def reward_forms(system: LinearQuadratic, linear: LinearTrajectory) -> Tensor:
    """The rewards ``r_t`` ``[H, X, X]``; the last one includes the terminal cost."""
    s, u = linear.state, linear.action
    reward = -_quadratic_form(s[:-1], system.Q) - _quadratic_form(u, system.R)
    reward[-1] -= system.gamma * _quadratic_form(s[-1], system.Qf)
    return reward


def value_forms(linear: LinearTrajectory, matrices: Tensor) -> Tensor:
    """The values ``V_t(s_t)`` ``[H+1, X, X]`` on the trajectory.

    Args:
        linear: the trajectory.
        matrices: a result of :func:`value_matrices
            <pgtoolkit.envs.analytic.lqg.cost.value_matrices>`.
    """
    one = torch.zeros_like(linear.state[:, :1])
    one[..., 0] = 1.0
    return _quadratic_form(torch.cat([linear.state, one], 1), matrices)


def discounted_sum(terms: Tensor, factor: float) -> Tensor:
    """``sum_{j >= t} factor^(j - t) x_j`` for every ``t`` ``[H, ...]``."""
    sums, following = torch.empty_like(terms), torch.zeros_like(terms[0])
    for t in reversed(range(len(terms))):
        following = terms[t] + factor * following
        sums[t] = following
    return sums


def action_gradients(
    system: LinearQuadratic, linear: LinearTrajectory, policy: LinearPolicy
) -> Tensor:
    """``dJ/du_t`` ``[H, m, X]``, the return's total derivative by each action, through the policy.

    Computed backwards by the adjoint of the closed loop: ``p_H = -2 Qf s_H``, ``a_t = -2 R u_t +
    gamma B' p_{t+1}``, ``p_t = -2 Q s_t + gamma A' p_{t+1} + K' a_t``; then ``dJ/du_t = gamma^t
    a_t``.
    """
    gradients = torch.empty_like(linear.action)
    adjoint = -2 * system.Qf @ linear.state[-1]
    for t in reversed(range(system.horizon)):
        by_action = system.gamma * system.B.T @ adjoint - 2 * system.R @ linear.action[t]
        adjoint = system.gamma * system.A.T @ adjoint - 2 * system.Q @ linear.state[t]
        adjoint = adjoint + policy.K.T @ by_action
        gradients[t] = system.gamma**t * by_action
    return gradients


def critic_slopes(system: LinearQuadratic, linear: LinearTrajectory, matrices: Tensor) -> Tensor:
    """``gamma^t dQ_t(s_t, u_t)/du_t`` ``[H, m, X]`` of a quadratic critic.

    Args:
        system: gives the discount.
        linear: the trajectory.
        matrices: ``N_t`` ``[H, n+1+m, n+1+m]``, symmetric, with ``Q_t = [s; 1; u]' N_t [s; 1; u]``.
    """
    one = torch.zeros_like(linear.action[:, :1])
    one[..., 0] = 1.0
    y = torch.cat([linear.state[:-1], one, linear.action], 1)
    discount = system.gamma ** torch.arange(system.horizon, dtype=y.dtype)
    slopes = 2 * matrices[:, -linear.action.shape[1] :] @ y
    return discount[:, None, None] * slopes


def _noise_columns(covariance: Tensor) -> Tensor:
    """The columns of the covariance's root that are not 0."""
    root = psd_root(covariance)
    # The eigenvalues of a singular matrix are 0 up to rounding, whose root is about 1e-8.
    return root[:, (root.abs() > 1e-7 * root.abs().max()).any(0)]


def _quadratic_form(affine: Tensor, matrix: Tensor) -> Tensor:
    """The form ``y' M y`` ``[T, X, X]`` of ``y = L [1; xi]``, ``L`` ``[T, n, X]``."""
    return affine.mT @ matrix @ affine
