"""An episode of a linear policy on a linear-quadratic-Gaussian system, as functions of its noise.

All noise of an episode is one vector ``xi ~ N(0, I)``: the start's, then of each step that of the
action and that of the dynamics. States, actions and the derivative of the return by an action are
affine in it; rewards, values, advantages and scores are quadratic. Both are kept as
:mod:`pgtoolkit.envs.analytic.lqg.quadratic_forms` has them. ``H`` is the horizon, ``X = 1 + D``
the length of ``[1; xi]``.
"""

import dataclasses
from typing import NamedTuple, final

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.arguments import shaped
from pgtoolkit.envs.analytic.lqg.cost import LinearQuadratic, closed_loop, cost_to_go
from pgtoolkit.shapes import check_shape


class LinearPolicy(NamedTuple):
    """``u = K s + k + sigma eps``; float64."""

    K: Tensor
    """``[m, n]``."""
    k: Tensor
    """``[m]``."""
    sigma: Tensor
    """``[m]``."""


def linear_policy(
    system: LinearQuadratic, K: ArrayLike, k: ArrayLike, sigma: ArrayLike
) -> LinearPolicy:
    """A user's numbers, lists or arrays as a policy; a scalar ``k`` or ``sigma`` is every entry.

    Raises:
        RequestError: one has another shape.
    """
    n, m = system.B.shape
    return LinearPolicy(
        shaped("K", K, (m, n)),
        shaped("k", k, (m,), spread=True),
        shaped("sigma", sigma, (m,), spread=True),
    )


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinearTrajectory:
    """Affine functions of an episode's noise: each is linear in ``[1; xi]``."""

    state: Tensor
    """``[H+1, n, X]`` s_0 .. s_H."""
    action: Tensor
    """``[H, m, X]`` u_t."""
    exploration: Tensor
    """``[H, m, X]`` eps_t, the action's noise."""
    known: Tensor
    """``[H, X]`` bool: what ``s_t`` and ``u_t`` determine, all noise but ``w_t`` and later."""


def linear_trajectory(system: LinearQuadratic, policy: LinearPolicy) -> LinearTrajectory:
    """The trajectory under the policy. Noise that a singular covariance rules out is left out."""
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
    """``r_t`` ``[H, X, X]``, the environment's: the last one has the terminal cost too."""
    s, u = linear.state, linear.action
    reward = -_quadratic(s[:-1], system.Q) - _quadratic(u, system.R)
    reward[-1] -= system.gamma * _quadratic(s[-1], system.Qf)
    return reward


def value_matrices(system: LinearQuadratic, policy: LinearPolicy) -> Tensor:
    """``M_t`` ``[H+1, n+1, n+1]``: ``V_t(s) = [s; 1]' M_t [s; 1]`` is the exact value, ``M_H = 0``.

    Minus the cost-to-go of :mod:`pgtoolkit.envs.analytic.lqg.cost`, and in the corner the cost of
    noise still to come, ``c_t = sum_i sigma_i^2 R_ii + gamma [tr(V_{t+1} G) + c_{t+1}]``. The
    terminal cost is part of the last reward, so after it there is no value.
    """
    Kz, F, G = closed_loop(system, *policy)
    matrices = torch.stack(cost_to_go(system, F, Kz))
    exploration = (policy.sigma.square() * system.R.diagonal()).sum()
    constant = torch.zeros_like(exploration)
    for t in reversed(range(system.horizon)):
        constant = exploration + system.gamma * ((matrices[t + 1] * G).sum() + constant)
        # The corner is read again only where it is multiplied by G's, which is 0.
        matrices[t, -1, -1] += constant
    matrices[-1] = 0.0
    return -matrices


def state_value(
    system: LinearQuadratic, policy: LinearPolicy, position: Tensor, time: Tensor
) -> Tensor:
    """``V_t(s)`` ``[N]`` of states, each at its own time, in the position's dtype.

    Args:
        system: ``n`` states.
        policy: the policy that is followed from there.
        position: ``[N, n]``.
        time: ``[N]`` integers; 0 value from the horizon on.
    """
    check_shape("position", position, None, len(system.m0))
    check_shape("time", time, len(position))
    matrices = value_matrices(system, policy).to(position)[time.clamp(max=system.horizon)]
    z = torch.cat([position, torch.ones_like(position[:, :1])], -1)
    return torch.einsum("ni,nij,nj->n", z, matrices, z)


def value_forms(linear: LinearTrajectory, matrices: Tensor) -> Tensor:
    """``V_t(s_t)`` ``[H+1, X, X]`` on the trajectory, from :func:`value_matrices`."""
    one = torch.zeros_like(linear.state[:, :1])
    one[..., 0] = 1.0
    return _quadratic(torch.cat([linear.state, one], 1), matrices)


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

    Backwards, the adjoint of the closed loop: ``p_H = -2 Qf s_H``, ``a_t = -2 R u_t + gamma B'
    p_{t+1}``, ``p_t = -2 Q s_t + gamma A' p_{t+1} + K' a_t``; then ``dJ/du_t = gamma^t a_t``.
    """
    gradients = torch.empty_like(linear.action)
    adjoint = -2 * system.Qf @ linear.state[-1]
    for t in reversed(range(system.horizon)):
        by_action = system.gamma * system.B.T @ adjoint - 2 * system.R @ linear.action[t]
        adjoint = system.gamma * system.A.T @ adjoint - 2 * system.Q @ linear.state[t]
        adjoint = adjoint + policy.K.T @ by_action
        gradients[t] = system.gamma**t * by_action
    return gradients


def psd_root(matrix: Tensor) -> Tensor:
    """A ``C`` with ``C C' = matrix``, for a singular one too, where Cholesky would fail."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root


def _noise_columns(covariance: Tensor) -> Tensor:
    root = psd_root(covariance)
    # Of a singular matrix eigenvalues come out as 0 up to rounding, whose root is 1e-8.
    return root[:, (root.abs() > 1e-7 * root.abs().max()).any(0)]


def _quadratic(affine: Tensor, matrix: Tensor) -> Tensor:
    """The form ``y' M y`` ``[T, X, X]`` of ``y = L [1; xi]``, ``L`` ``[T, n, X]``."""
    return affine.mT @ matrix @ affine
