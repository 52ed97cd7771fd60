"""An expanding map with a bounded reward: the pathwise gradient's variance explodes.

The closed forms of its expected return, gradient and estimator moments are in this file too.
"""

import math
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.analytic.exact import (
    ExactGradient,
    exact_moments,
    require_gaussian,
)
from pgtoolkit.envs.analytic.open_loop import OpenLoopEnv, OpenLoopState
from pgtoolkit.envs.arguments import positive_integer, require_finite
from pgtoolkit.envs.rendering import canvas
from pgtoolkit.errors import RequestError


@final
class Chaos(OpenLoopEnv):
    """A point on a line that moves away from 0, rewarded by a cosine of its last position.

    ::

        s_0 = s0,   s_{t+1} = rho s_t + u_t
        r_t = cos(kappa s_H) at the last step, 0 before

    With ``|rho| > 1`` the distance between two neighbouring starts grows exponentially, as in
    chaos. The reward is bounded, so the score function's variance grows only with the horizon,
    while the pathwise gradient is multiplied by ``rho`` at every step and its variance grows as
    ``rho^(2H)``. A quadratic cost would hide that, because the return explodes too. The gradient
    itself vanishes at about the same horizon, because the position is spread over many periods of
    the cosine.

    The episode terminates after ``horizon`` steps. The observation ``[N, 1]`` is always 0, so the
    action is ``u_t = mean + sigma eps_t`` at every step, and the closed forms below hold for this
    policy with discount 1. Deterministic; the derivative is exact. In float32 the phase is
    meaningless once ``|kappa s_H|`` exceeds some 1e5: use float64 for long horizons.

    Args:
        rho: the factor by which the position grows in each step.
        kappa: the reward's frequency, in radians per unit of position.
        s0: the start position.
        horizon: the number of steps of an episode.

    Raises:
        RequestError: an argument is not finite, the horizon is not a positive integer, or
            ``rho^(2 horizon)`` is out of the range of floating point.
    """

    def __init__(
        self, rho: float = 1.2, kappa: float = 1.0, s0: float = 1.0, horizon: int = 10
    ) -> None:
        require_finite("Chaos", rho=rho, kappa=kappa, s0=s0)
        self.rho, self.kappa, self.s0 = float(rho), float(kappa), float(s0)
        self.horizon = self.max_episode_steps = _checked_horizon(self.rho, horizon)
        super().__init__(self.s0)

    def transition(
        self, state: OpenLoopState, action: Tensor, noise: Tensor | None
    ) -> OpenLoopState:
        return OpenLoopState(self.rho * state.position + action, state.time + 1)

    def reward(self, state: OpenLoopState, action: Tensor, next_state: OpenLoopState) -> Tensor:
        final = torch.cos(self.kappa * next_state.position.squeeze(-1))
        return torch.where(self.terminal(next_state), final, torch.zeros_like(final))

    def terminal(self, state: OpenLoopState) -> Tensor:
        return state.time >= self.horizon

    def expected_return(self, mean: float, sigma: float) -> float:
        """The exact ``E[cos(kappa s_H)] = exp(-kappa^2 v / 2) cos(kappa m)``.

        ``s_H ~ N(m, v)``, ``m = rho^H s0 + mean sum_t rho^t``, ``v = sigma^2 sum_t rho^(2t)``.

        Raises:
            RequestError: mean or sigma is not that of a Gaussian.
        """
        require_gaussian("Chaos", mean, sigma)
        k, h = self.kappa, self.horizon
        m = self.rho**h * self.s0 + mean * power_sum(self.rho, h)
        v = sigma * sigma * power_sum(self.rho * self.rho, h)
        return math.exp(-k * k * v / 2) * math.cos(k * m)

    def exact_gradient(self, mean: float, sigma: float) -> ExactGradient:
        """The exact gradient of :meth:`expected_return`, and the moments of both its estimates.

        Raises:
            RequestError: mean or sigma is not that of a Gaussian.
        """
        require_gaussian("Chaos", mean, sigma)
        return cosine_moments(self.rho, self.kappa, self.s0, self.horizon, mean, sigma)

    def crossover_horizon(self, mean: float, sigma: float, max_horizon: int = 400) -> int | None:
        """The first horizon at which the score function has less variance than pathwise.

        Compared are the gradients by the action's mean, the score function with its optimal
        constant baseline. The environment's own horizon does not matter. The variances cross more
        than once where ``sin kappa m`` comes near 0; this is the first crossing.

        Args:
            mean: the action's mean.
            sigma: the action's standard deviation.
            max_horizon: the last horizon to compare.

        Returns:
            The horizon; None if there is none up to ``max_horizon``.

        Raises:
            RequestError: mean or sigma is not that of a Gaussian, or the horizons are too long for
                floating point.
        """
        require_gaussian("Chaos", mean, sigma)
        for horizon in range(1, max_horizon + 1):
            _checked_horizon(self.rho, horizon)
            by = cosine_moments(self.rho, self.kappa, self.s0, horizon, mean, sigma).mean
            if by.pathwise_variance > by.optimal_baseline_variance:
                return horizon
        return None

    def render(self, state: OpenLoopState, index: int) -> NDArray[np.uint8]:
        """The phase ``kappa s`` as the hand of a clock. The reward is 1 at the top, in green."""
        phase = self.kappa * float(state.position[index, 0])
        tip = (math.sin(phase), math.cos(phase))
        picture = canvas.blank(extent=1.4)
        picture = canvas.ring(picture, (0.0, 0.0), 1.0, 0.02, canvas.LIGHT)
        picture = canvas.ring(picture, (0.0, 1.0), 0.16, 0.04, canvas.GREEN)
        picture = canvas.segment(picture, (0.0, 0.0), tip, 0.03, canvas.DARK)
        return canvas.disc(picture, tip, 0.1, canvas.BLUE).rgb()


def _checked_horizon(rho: float, horizon: float) -> int:
    steps = positive_integer("Chaos", "horizon", horizon)
    if 2 * steps * math.log(max(abs(rho), 1.0)) > 600:
        raise RequestError(
            f"Chaos's rho {rho} to the power of twice the horizon {steps} is out of the "
            "range of floating point: shorten the horizon"
        )
    return steps


def cosine_moments(
    rho: float, kappa: float, s0: float, horizon: int, mean: float, sigma: float
) -> ExactGradient:
    """Gradient and moments for ``E[cos(kappa s_H)]``, ``s' = rho s + u``, ``u ~ N(mean, sigma^2)``.

    With ``c = sum_t rho^t``, ``w = sum_t rho^(2t)``, ``m = rho^H s0 + mean c``, ``d = kappa^2
    sigma^2 w``, ``J = exp(-d/2) cos(kappa m)`` and ``q = exp(-2d) cos(2 kappa m)``::

                   by mean                             by sigma
        g          -kappa c exp(-d/2) sin(kappa m)     -kappa^2 sigma w J
        E[RP^2]    kappa^2 c^2 (1 - q) / 2             kappa^2 w (1 - (1 - 4d) q) / 2
        E[f^2 S^2] (H + (H - 4b) q) / (2 sigma^2)      (H + (H - 8d + 8d^2) q) / sigma^2
        E[f S^2]   (H - b) J / sigma^2                 (2H - 4d + d^2) J / sigma^2

    with ``b = (kappa sigma c)^2``. Each is some ``E[p(eps) cos(x + y'eps)]`` with a polynomial
    ``p``, and that is ``exp(-|y|^2 / 2)`` times the real part of ``exp(ix) E[p(eps + iy)]``.
    """
    c, w = power_sum(rho, horizon), power_sum(rho * rho, horizon)
    m, d = rho**horizon * s0 + mean * c, kappa * kappa * sigma * sigma * w
    b, damping = kappa * kappa * sigma * sigma * c * c, math.exp(-d / 2)
    J, q = damping * math.cos(kappa * m), math.exp(-2 * d) * math.cos(2 * kappa * m)
    by_mean, by_sigma = -kappa * c * damping * math.sin(kappa * m), -kappa * kappa * sigma * w * J
    precision, n = 1 / (sigma * sigma), horizon
    return ExactGradient(
        mean=exact_moments(
            gradient=by_mean,
            pathwise_mean=by_mean,
            pathwise_square=kappa * kappa * c * c * (1 - q) / 2,
            score_square=(n + (n - 4 * b) * q) * precision / 2,
            product=(n - b) * J * precision,
            fisher=n * precision,
        ),
        sigma=exact_moments(
            gradient=by_sigma,
            pathwise_mean=by_sigma,
            pathwise_square=kappa * kappa * w * (1 - (1 - 4 * d) * q) / 2,
            score_square=(n + (n - 8 * d + 8 * d * d) * q) * precision,
            product=(2 * n - 4 * d + d * d) * J * precision,
            fisher=2 * n * precision,
        ),
    )


def power_sum(ratio: float, count: int) -> float:
    """``1 + ratio + ... + ratio^(count-1)``, summed term by term, so that ratio 1 needs no case."""
    return math.fsum(ratio**t for t in range(count))
