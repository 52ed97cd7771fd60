"""The linear-quadratic-Gaussian system, whose policy gradient is known in closed form."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pgtoolkit.envs.analytic.lqg import moments
from pgtoolkit.envs.analytic.lqg.cost import (
    LQGGradient,
    action_value,
    cost_gradient,
    expected_cost,
    state_value,
)
from pgtoolkit.envs.analytic.lqg.moments import GradientMoments, LQGEstimator
from pgtoolkit.envs.analytic.lqg.system import (
    make_policy,
    make_q_error,
    make_system,
    psd_root,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.rendering import canvas

Matrix: TypeAlias = float | Sequence[Any] | NDArray[np.floating[Any]] | Tensor


class LQGState(NamedTuple):
    position: Tensor
    """``[N, n]`` the state ``s`` of the equations."""
    time: Tensor
    """``[N]`` steps since the start, an integer."""


@final
class LQG(DifferentiableEnv[LQGState]):
    """A linear system with quadratic cost and Gaussian noise, over a fixed horizon.

    ::

        s_0 ~ N(m0, P0),   s_{t+1} = A s_t + B u_t + w_t,   w_t ~ N(0, W)
        r_t = -(s_t' Q s_t + u_t' R u_t),   and at the last step also  -gamma s_H' Qf s_H

    so that ``sum_t gamma^t r_t`` is the whole return. The episode *terminates* after ``horizon``
    steps, and the value after them is 0. The observation ``[N, n]`` is the state. The derivative is
    exact. For a linear policy, the methods below compute the expected return, its gradient, the
    value function, and the mean and variance of every estimator, all exactly and without sampling:
    references for sampled estimates. The defaults are a small scalar system.

    Every matrix may be a scalar, nested lists or an array. A scalar ``Q``, ``R``, ``Qf``, ``P0`` or
    ``W`` stands for itself times the identity, a scalar ``m0`` for a vector of equal entries.

    Args:
        A: ``[n, n]``.
        B: ``[n, m]``.
        Q: ``[n, n]``, symmetric positive semidefinite.
        R: ``[m, m]``, symmetric positive semidefinite.
        Qf: ``[n, n]``, symmetric positive semidefinite.
        m0: ``[n]``, the mean of the start state.
        P0: ``[n, n]``, the covariance of the start state; with 0 every episode starts at the mean.
        W: ``[n, n]``, the covariance of the process noise; 0 makes the dynamics deterministic.
        horizon: the number of steps of an episode.
        gamma: the discount of the terminal cost; use the agent's.

    Raises:
        RequestError: a matrix has the wrong shape, is not finite, symmetric or positive
            semidefinite, or the horizon or the discount are out of range.
    """

    def __init__(
        self,
        A: Matrix = 0.9,
        B: Matrix = 0.5,
        Q: Matrix = 1.0,
        R: Matrix = 0.1,
        Qf: Matrix = 1.0,
        m0: Matrix = 1.0,
        P0: Matrix = 0.25,
        W: Matrix = 0.04,
        horizon: int = 5,
        gamma: float = 0.95,
    ) -> None:
        self.system = make_system(A, B, Q, R, Qf, m0, P0, W, horizon, gamma)
        n, m = self.system.B.shape
        self.max_episode_steps = self.system.horizon
        self.observation_space = Box(-np.inf, np.inf, (n,), np.float32)
        self.action_space = Box(-np.inf, np.inf, (m,), np.float32)
        self.noise_shape = (n,) if bool(self.system.W.any()) else None
        self._start_root = psd_root(self.system.P0)
        self._noise_root = psd_root(self.system.W)

    def initial(self, num_envs: int, generator: torch.Generator) -> LQGState:
        noise = torch.randn(
            num_envs, len(self.system.m0), generator=generator, device=generator.device
        )
        position = self.system.m0.to(noise) + noise @ self._start_root.to(noise).T
        return LQGState(position, torch.zeros(num_envs, dtype=torch.int64, device=noise.device))

    def transition(self, state: LQGState, action: Tensor, noise: Tensor | None) -> LQGState:
        s = state.position
        after = s @ self.system.A.to(s).T + action @ self.system.B.to(s).T
        if noise is not None:
            after = after + noise @ self._noise_root.to(s).T
        return LQGState(after, state.time + 1)

    def observation(self, state: LQGState) -> Tensor:
        return state.position

    def reward(self, state: LQGState, action: Tensor, next_state: LQGState) -> Tensor:
        running = _quadratic(state.position, self.system.Q) + _quadratic(action, self.system.R)
        final = self.system.gamma * _quadratic(next_state.position, self.system.Qf)
        return -running - torch.where(self.terminal(next_state), final, torch.zeros_like(final))

    def terminal(self, state: LQGState) -> Tensor:
        return state.time >= self.system.horizon

    def expected_return(self, K: ArrayLike, k: ArrayLike, sigma: ArrayLike) -> float:
        """The exact ``E[sum_t gamma^t r_t]`` under ``u = K s + k + sigma eps``.

        Args:
            K: the policy's gain ``[m, n]``, or a scalar where ``m = n = 1``.
            k: the policy's offset ``[m]``, or a scalar for every entry.
            sigma: the policy's standard deviation ``[m]``, or a scalar for every entry.

        Raises:
            RequestError: one has another shape.
        """
        return -expected_cost(self.system, *make_policy(self.system, K, k, sigma))

    def return_gradient(self, K: ArrayLike, k: ArrayLike, sigma: ArrayLike) -> LQGGradient:
        """The exact derivative of :meth:`expected_return` by the policy's three parameters.

        The arguments are those of :meth:`expected_return`.

        Returns:
            ``K`` ``[m, n]``, ``k`` ``[m]`` and ``sigma`` ``[m]``, in float64.

        Raises:
            RequestError: one has another shape.
        """
        by = cost_gradient(self.system, *make_policy(self.system, K, k, sigma))
        return LQGGradient(-by.K, -by.k, -by.sigma)

    def value(self, state: LQGState, K: ArrayLike, k: ArrayLike, sigma: ArrayLike) -> Tensor:
        """The exact ``E[sum_{j >= t} gamma^(j - t) r_j | s_t]`` ``[N]``, ``t`` the state's time.

        It is 0 after the end of the episode, because the last reward includes the terminal cost.
        It is differentiable by the state and has its dtype.

        Args:
            state: ``N`` states, each at its own time.
            K: the policy's gain ``[m, n]``, or a scalar where ``m = n = 1``.
            k: the policy's offset ``[m]``, or a scalar for every entry.
            sigma: the policy's standard deviation ``[m]``, or a scalar for every entry.

        Raises:
            RequestError: a parameter has another shape.
            ValueError: the state has another shape than this system's.
        """
        policy = make_policy(self.system, K, k, sigma)
        return state_value(self.system, policy, state.position, state.time)

    def action_value(
        self, state: LQGState, action: Tensor, K: ArrayLike, k: ArrayLike, sigma: ArrayLike
    ) -> Tensor:
        """The exact ``Q_t(s, u)`` ``[N]``: the reward of ``u`` and the value of what follows.

        It is differentiable by state and action, and has the state's dtype.

        Args:
            state: ``N`` states, each at its own time; from the horizon on the value is 0.
            action: ``u`` ``[N, m]``.
            K: the policy's gain ``[m, n]``, as in :meth:`value`.
            k: the policy's offset ``[m]``.
            sigma: the policy's standard deviation ``[m]``.

        Raises:
            RequestError: a parameter has another shape.
            ValueError: state or action have another shape than this system's.
        """
        policy = make_policy(self.system, K, k, sigma)
        return action_value(self.system, policy, state.position, action, state.time)

    def gradient_moments(
        self,
        K: ArrayLike,
        k: ArrayLike,
        sigma: ArrayLike,
        estimator: LQGEstimator,
        lambda_: float = 0.95,
        q_error: Matrix = 0.0,
    ) -> GradientMoments:
        """The exact mean and variance of one trajectory's gradient estimate, entry by entry.

        With the score ``S_t = dlog pi(u_t|s_t)/dtheta``, the return ``R = sum_t gamma^t r_t``, the
        return-to-go ``G_t`` and the exact ``V_t`` and ``Q_t``, an estimator is

        ======================  ==============================================================
        ``score_function``      ``R sum_t S_t``
        ``optimal_baseline``    ``(R - b) sum_t S_t``, ``b`` of :meth:`optimal_baseline`
        ``reward_to_go``        ``sum_t gamma^t G_t S_t``
        ``reward_to_go_value``  ``sum_t gamma^t (G_t - V_t) S_t``
        ``gae``                 ``sum_t gamma^t S_t sum_{j>=t} (gamma lambda)^(j-t) delta_j``
        ``advantage``           ``sum_t gamma^t (Q_t - V_t) S_t``
        ``pathwise``            ``dR/dtheta`` at fixed noise, through dynamics and policy
        ``critic``              ``sum_t gamma^t dQ_t(s_t, u_t)/du_t du_t/dtheta`` at fixed noise
        ======================  ==============================================================

        with ``delta_t = r_t + gamma V_{t+1} - V_t``. The mean of each is :meth:`return_gradient`;
        with an exact value function, a ``lambda`` below 1 causes no bias. With ``q_error`` ``E``
        the critic's is that of ``Q_t + [s; 1; u]' E [s; 1; u]``: then it has a bias, its mean less
        the gradient. Rewards, values and
        scores are quadratics of Gaussian noise, and the moments of their products follow from joint
        cumulants. Time grows as ``(n + m)^3 H^5`` for the last four score functions, ``H^3`` for
        the others.

        Args:
            K: ``[m, n]``, as in :meth:`expected_return`.
            k: ``[m]``.
            sigma: ``[m]``; it may be 0 only for ``pathwise`` and ``critic``.
            estimator: one of the above.
            lambda_: used by ``gae`` only.
            q_error: ``E`` ``[n+1+m, n+1+m]``, symmetric, used by ``critic`` only; 0 for none.

        Returns:
            ``mean`` and ``variance``, each ``K`` ``[m, n]``, ``k`` ``[m]``, ``sigma`` ``[m]``.

        Raises:
            RequestError: a parameter has another shape, a sigma is 0, there is no such estimator,
                or ``lambda_`` is not from 0 to 1.
        """
        policy = make_policy(self.system, K, k, sigma)
        error = make_q_error(self.system, q_error)
        return moments.gradient_moments(self.system, policy, estimator, lambda_, error)

    def gradient_covariance(
        self,
        K: ArrayLike,
        k: ArrayLike,
        sigma: ArrayLike,
        first: LQGEstimator,
        second: LQGEstimator,
        lambda_: float = 0.95,
        q_error: Matrix = 0.0,
    ) -> LQGGradient:
        """The exact covariance of two estimators on the same trajectories, entry by entry.

        Arguments and errors are those of :meth:`gradient_moments`, but for the two estimators.
        """
        policy = make_policy(self.system, K, k, sigma)
        error = make_q_error(self.system, q_error)
        return moments.gradient_covariance(self.system, policy, first, second, lambda_, error)

    def optimal_baseline(self, K: ArrayLike, k: ArrayLike, sigma: ArrayLike) -> LQGGradient:
        """The exact ``b = E[R S^2] / E[S^2]`` for each entry, ``S`` the sum of the steps' scores.

        Of all constants it gives ``(R - b) S`` the least variance (Greensmith et al. 2004). It is 0
        for an entry whose score is always 0. The arguments are those of :meth:`expected_return`.

        Raises:
            RequestError: a parameter has another shape, or a sigma is 0.
        """
        return moments.optimal_baseline(self.system, make_policy(self.system, K, k, sigma))

    def render(self, state: LQGState, index: int) -> NDArray[np.uint8]:
        """The state as a point on a line or a plane, around the origin.

        Raises:
            RequestError: the state has three dimensions or more.
        """
        if len(self.system.m0) > 2:
            return super().render(state, index)
        x, y = [*state.position[index].tolist(), 0.0][:2]
        picture = canvas.blank(extent=3.0)
        picture = canvas.segment(picture, (-3.0, 0.0), (3.0, 0.0), 0.02, canvas.LIGHT)
        if len(self.system.m0) == 2:
            picture = canvas.segment(picture, (0.0, -3.0), (0.0, 3.0), 0.02, canvas.LIGHT)
        picture = canvas.ring(picture, (0.0, 0.0), 0.25, 0.05, canvas.GREEN)
        return canvas.disc(picture, (x, y), 0.15, canvas.BLUE).rgb()


def _quadratic(x: Tensor, matrix: Tensor) -> Tensor:
    """``x' M x`` ``[N]``."""
    return ((x @ matrix.to(x)) * x).sum(-1)
