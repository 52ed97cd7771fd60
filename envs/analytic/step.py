"""A reward that jumps: the pathwise gradient is 0 without any variance, and wrong.

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
    Phi,
    exact_moments,
    phi,
    require_gaussian,
)
from pgtoolkit.envs.analytic.open_loop import OneStepEnv, OpenLoopState, indicator
from pgtoolkit.envs.arguments import require_at_least, require_finite
from pgtoolkit.envs.differentiable import GradientInfo
from pgtoolkit.envs.rendering import canvas


@final
class Step(OneStepEnv):
    """One action with reward 1 above a threshold and 0 below, or a smooth rise from 0 to 1.

    ::

        r = 1[u > threshold]                      smoothing 0
        r = Phi((u - threshold) / smoothing)      smoothing > 0

    Without smoothing the reward is flat wherever it has a derivative. The pathwise estimate is 0 on
    every trajectory, with a measured variance of 0: it looks perfect and carries no information.
    With smoothing it is unbiased, and its variance grows as 1 / smoothing. A batch without an
    action near the threshold still measures almost no variance.

    The episode terminates after one step. The observation ``[N, 1]`` is always 0, so the action is
    ``u = mean + sigma eps``, and the closed forms below hold for this policy. Without smoothing
    ``gradient`` says that the reward's derivative is approximate and the contact stiff, because it
    is right at almost every action but misses the jump.

    Args:
        threshold: the action at which the reward rises.
        smoothing: the standard deviation of the rise, in units of the action; 0 is a jump.

    Raises:
        RequestError: an argument is not finite, or the smoothing is negative.
    """

    def __init__(self, threshold: float = 0.0, smoothing: float = 0.0) -> None:
        require_finite("Step", threshold=threshold, smoothing=smoothing)
        require_at_least("Step", 0, smoothing=smoothing)
        super().__init__()
        self.threshold, self.smoothing = float(threshold), float(smoothing)
        if self.smoothing > 0:
            self.gradient = GradientInfo(contacts="smooth")
        else:
            self.gradient = GradientInfo(reward="approximate", contacts="stiff")

    def reward(self, state: OpenLoopState, action: Tensor, next_state: OpenLoopState) -> Tensor:
        beyond = next_state.position.squeeze(-1) - self.threshold
        if self.smoothing == 0:
            return indicator(beyond)
        smooth: Tensor = torch.special.ndtr(beyond / self.smoothing)
        return smooth

    def expected_return(self, mean: float, sigma: float) -> float:
        """The exact ``E[r] = Phi((mean - threshold) / sqrt(sigma^2 + smoothing^2))``.

        Raises:
            RequestError: mean or sigma is not that of a Gaussian.
        """
        require_gaussian("Step", mean, sigma)
        return Phi((mean - self.threshold) / math.hypot(sigma, self.smoothing))

    def exact_gradient(self, mean: float, sigma: float) -> ExactGradient:
        """The exact gradient of :meth:`expected_return`, and the moments of both its estimates.

        Raises:
            RequestError: mean or sigma is not that of a Gaussian.
        """
        require_gaussian("Step", mean, sigma)
        return step_moments(mean - self.threshold, sigma, self.smoothing)

    def render(self, state: OpenLoopState, index: int) -> NDArray[np.uint8]:
        """The action on a line that is green where the reward is 1."""
        x = float(state.position[index, 0]) - self.threshold
        picture = canvas.blank(extent=3.0)
        picture = canvas.segment(picture, (-3.0, 0.0), (0.0, 0.0), 0.06, canvas.LIGHT)
        picture = canvas.segment(picture, (0.0, 0.0), (3.0, 0.0), 0.06, canvas.GREEN)
        picture = canvas.segment(picture, (0.0, -0.3), (0.0, 0.3), 0.05, canvas.DARK)
        return canvas.disc(picture, (x, 0.0), 0.15, canvas.BLUE).rgb()


def step_moments(m: float, s: float, nu: float) -> ExactGradient:
    """Gradient and moments for ``f(x) = Phi(x / nu)``, ``x ~ N(m, s^2)``; ``nu = 0``: ``1[x > 0]``.

    With ``F(m) = E f``, ``M(m) = E f^2`` and ``G(m) = E f'^2``, derivatives by ``m`` give every
    moment, because ``E[h(x) He_n(eps)] = s^n d^n/dm^n E[h(x)]`` (Stein)::

                   by mean                by sigma
        g          F'                     s F''
        E[RP^2]    G                      G + s^2 G''
        E[f^2 S^2] (M + s^2 M'') / s^2    (2 M + 4 s^2 M'' + s^4 M'''') / s^2

    and ``E[f S^2]`` as ``E[f^2 S^2]`` with ``F`` in place of ``M``.
    """
    F, M = _even_derivatives_of_mean(m, s, nu), _even_derivatives_of_square(m, s, nu)
    w = math.hypot(s, nu)
    by_mean, by_sigma = phi(m / w) / w, s * F[1]
    slope, curvature = _squared_slope(m, s, nu)
    smooth = nu > 0
    return ExactGradient(
        mean=exact_moments(
            gradient=by_mean,
            pathwise_mean=by_mean if smooth else 0.0,
            pathwise_square=slope,
            score_square=(M[0] + s**2 * M[1]) / s**2,
            product=(F[0] + s**2 * F[1]) / s**2,
            fisher=1 / s**2,
        ),
        sigma=exact_moments(
            gradient=by_sigma,
            pathwise_mean=by_sigma if smooth else 0.0,
            pathwise_square=slope + s**2 * curvature,
            score_square=(2 * M[0] + 4 * s**2 * M[1] + s**4 * M[2]) / s**2,
            product=(2 * F[0] + 4 * s**2 * F[1] + s**4 * F[2]) / s**2,
            fisher=2 / s**2,
        ),
    )


def _even_derivatives_of_mean(m: float, s: float, nu: float) -> tuple[float, float, float]:
    """``F = Phi(h)``, ``h = m / w``, ``w^2 = s^2 + nu^2``, and its second and fourth derivative."""
    w = math.hypot(s, nu)
    h = m / w
    return Phi(h), -h * phi(h) / w**2, (3 * h - h**3) * phi(h) / w**4


def _even_derivatives_of_square(m: float, s: float, nu: float) -> tuple[float, float, float]:
    """``M = Phi(h) - 2 T(h, c)`` with Owen's T, and its second and fourth derivative.

    ``E Phi(x / nu)^2`` is the probability that two normals, of correlation ``s^2 / w^2``, are both
    below ``h``; ``c = nu / sqrt(2 s^2 + nu^2)``. Its first derivative is ``2 A / w`` with ``A =
    phi(h) Phi(c h)``; the rest follows with ``B = phi(h) phi(c h)``.
    """
    from scipy.special import owens_t

    w, c = math.hypot(s, nu), nu / math.sqrt(2 * s**2 + nu**2)
    h = m / w
    A, B = phi(h) * Phi(c * h), phi(h) * phi(c * h)
    first = -h * A + c * B
    third = (h**2 - 1) * first + 2 * h * A - c * (2 + c**2) * (1 - (1 + c**2) * h**2) * B
    return Phi(h) - 2 * float(owens_t(h, c)), 2 * first / w**2, 2 * third / w**4


def _squared_slope(m: float, s: float, nu: float) -> tuple[float, float]:
    """``G = E[f'^2] = N(m; 0, v) / (2 nu sqrt(pi))``, ``v = s^2 + nu^2 / 2``, and ``G''``."""
    if nu == 0:
        return 0.0, 0.0
    v = s**2 + nu**2 / 2
    G = phi(m / math.sqrt(v)) / math.sqrt(v) / (2 * nu * math.sqrt(math.pi))
    return G, G * (m**2 / v - 1) / v
