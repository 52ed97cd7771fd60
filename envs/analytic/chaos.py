"""An expanding map with a bounded reward: the pathwise gradient's variance explodes."""

import math
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.analytic.exact import (
    ExactGradient,
    exact_moments,
    require_finite_arguments,
    require_gaussian,
)
from pgtoolkit.envs.analytic.open_loop import (
    BlindState,
    nothing_to_see,
    start_at,
    unbounded_action,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.rendering import canvas as drawing
from pgtoolkit.errors import RequestError


@final
class Chaos(DifferentiableEnv[BlindState]):
    """A point on a line that runs away from 0, paid by a cosine of where it ends.

    ::

        s_0 = s0,   s_{t+1} = rho s_t + u_t
        r_t = cos(kappa s_H) at the last step, 0 before

    With ``|rho| > 1`` two neighbouring starts part exponentially, as in chaos. The reward is
    bounded, so the score function's variance grows only with the horizon, while the pathwise
    gradient is multiplied by ``rho`` at every step and its variance grows as ``rho^(2H)``. Under a
    quadratic cost that would not show, because the return explodes too. The gradient itself dies in
    the folds of the cosine at about the same horizon.

    The episode terminates after ``horizon`` steps. Observation ``[N, 1]``: always 0, so the policy
    is blind, its action is ``u_t = mean + sigma eps_t`` at every step, and the closed forms below
    hold for it with discount 1. Deterministic; the derivative is exact. In float32 the phase is
    lost once ``|kappa s_H|`` passes some 1e5: use float64 for long horizons.

    Args:
        rho: by what the position is multiplied at each step.
        kappa: the reward's frequency, in radians per unit of position.
        s0: the start.
        horizon: steps of an episode.

    Raises:
        RequestError: an argument is not finite, the horizon is not a positive integer, or
            ``rho^(2 horizon)`` is out of the range of floating point.
    """

    def __init__(
        self, rho: float = 1.2, kappa: float = 1.0, s0: float = 1.0, horizon: int = 10
    ) -> None:
        require_finite_arguments("Chaos", rho=rho, kappa=kappa, s0=s0, horizon=horizon)
        self.rho, self.kappa, self.s0 = float(rho), float(kappa), float(s0)
        self.horizon = self.max_episode_steps = _checked_horizon(self.rho, horizon)
        self.observation_space, self.action_space = nothing_to_see(), unbounded_action()

    def initial(self, num_envs: int, generator: torch.Generator) -> BlindState:
        return start_at(self.s0, num_envs, generator)

    def transition(self, state: BlindState, action: Tensor, noise: Tensor | None) -> BlindState:
        return BlindState(self.rho * state.position + action, state.time + 1)

    def observation(self, state: BlindState) -> Tensor:
        return torch.zeros_like(state.position)

    def reward(self, state: BlindState, action: Tensor, next_state: BlindState) -> Tensor:
        final = torch.cos(self.kappa * next_state.position.squeeze(-1))
        return torch.where(self.terminal(next_state), final, torch.zeros_like(final))

    def terminal(self, state: BlindState) -> Tensor:
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
        """The first horizon at which the score function beats pathwise, by the mean of the action.

        It beats it when the variance with the optimal constant baseline is the smaller one. This
        environment's own horizon does not matter. The variances cross more than once where ``sin
        kappa m`` comes near 0; this is the first time.

        Args:
            mean: of the action.
            sigma: its standard deviation.
            max_horizon: the last horizon to look at.

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

    def render(self, state: BlindState, index: int) -> NDArray[np.uint8]:
        """The phase ``kappa s`` as the hand of a clock, from the top; there the reward is 1."""
        phase = self.kappa * float(state.position[index, 0])
        tip = (math.sin(phase), math.cos(phase))
        picture = drawing.canvas(extent=1.4)
        picture = drawing.ring(picture, (0.0, 0.0), 1.0, 0.02, drawing.FAINT)
        picture = drawing.ring(picture, (0.0, 1.0), 0.16, 0.04, drawing.GREEN)
        picture = drawing.segment(picture, (0.0, 0.0), tip, 0.03, drawing.INK)
        return drawing.disc(picture, tip, 0.1, drawing.BLUE).rgb()


def _checked_horizon(rho: float, horizon: float) -> int:
    if int(horizon) != horizon or horizon < 1:
        raise RequestError(f"Chaos's horizon is {horizon}: it must be an integer, at least 1")
    if 2 * horizon * math.log(max(abs(rho), 1.0)) > 600:
        raise RequestError(
            f"Chaos's rho {rho} to the power of twice the horizon {int(horizon)} is out of the "
            "range of floating point: shorten the horizon"
        )
    return int(horizon)


def cosine_moments(
    rho: float, kappa: float, s0: float, horizon: int, mean: float, sigma: float
) -> ExactGradient:
    """Of ``cos(kappa s_H)`` under ``s' = rho s + u``, ``u ~ N(mean, sigma^2)``, ``H`` steps.

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
    """``1 + ratio + ... + ratio^(count-1)``: term by term, which is right at ratio 1 as well."""
    return math.fsum(ratio**t for t in range(count))
