"""A smooth reward with a jump at a wall: the pathwise gradient is biased, whatever its variance.

The closed forms of its expected return, gradient and estimator moments are in this file too.
"""

from typing import final

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.analytic.exact import (
    ExactGradient,
    ExactMoments,
    exact_moments,
    polynomial_mean,
    require_gaussian,
)
from pgtoolkit.envs.analytic.open_loop import OneStepEnv, OpenLoopState, indicator
from pgtoolkit.envs.arguments import require_finite
from pgtoolkit.envs.differentiable import GradientInfo
from pgtoolkit.envs.rendering import canvas


@final
class Wall(OneStepEnv):
    """One action towards a target behind a wall, where the reward jumps.

    ::

        r = -(u - target)^2 + jump 1[u > wall]

    The pathwise gradient is that of the parabola alone. With ``a = (wall - mean) / sigma`` its bias
    is exactly ``-jump phi(a) / sigma`` by the mean and ``-jump a phi(a) / sigma`` by sigma. With
    the defaults it leads through the wall to the target, where the return is -12. The best return,
    -1/4, is before the wall, and the score function finds it.

    The episode terminates after one step. The observation ``[N, 1]`` is always 0, so the action is
    ``u = mean + sigma eps``, and the closed forms below hold for this policy. ``gradient`` says
    that the reward's derivative is approximate and the contact stiff, because it is right at almost
    every action but misses the jump.

    Args:
        target: the action at which the parabola is highest.
        wall: the action at which the reward jumps.
        jump: added to the reward of actions above the wall.

    Raises:
        RequestError: an argument is not finite.
    """

    gradient = GradientInfo(reward="approximate", contacts="stiff")

    def __init__(self, target: float = 1.0, wall: float = 0.5, jump: float = -12.0) -> None:
        require_finite("Wall", target=target, wall=wall, jump=jump)
        super().__init__()
        self.target, self.wall, self.jump = float(target), float(wall), float(jump)

    def reward(self, state: OpenLoopState, action: Tensor, next_state: OpenLoopState) -> Tensor:
        u = next_state.position.squeeze(-1)
        return self.jump * indicator(u - self.wall) - (u - self.target).square()

    def expected_return(self, mean: float, sigma: float) -> float:
        """The exact ``E[r] = -(mean - target)^2 - sigma^2 + jump Phi((mean - wall) / sigma)``.

        Raises:
            RequestError: mean or sigma is not that of a Gaussian.
        """
        smooth, edge = self._in_terms_of_noise(mean, sigma)
        return polynomial_mean(smooth) + self.jump * polynomial_mean(Polynomial([1.0]), edge)

    def exact_gradient(self, mean: float, sigma: float) -> ExactGradient:
        """The exact gradient of :meth:`expected_return`, and the moments of both its estimates.

        Raises:
            RequestError: mean or sigma is not that of a Gaussian.
        """
        smooth, edge = self._in_terms_of_noise(mean, sigma)
        by_mean = Polynomial([0.0, 1.0 / sigma]), Polynomial([1.0 / sigma])
        by_sigma = Polynomial([-1.0, 0.0, 1.0]) / sigma, Polynomial([0.0, 1.0 / sigma])
        return ExactGradient(
            mean=jump_moments(smooth, self.jump, edge, *by_mean),
            sigma=jump_moments(smooth, self.jump, edge, *by_sigma),
        )

    def render(self, state: OpenLoopState, index: int) -> NDArray[np.uint8]:
        """The action on a line, the target as a ring, the wall as a red bar."""
        x, target = float(state.position[index, 0]) - self.wall, self.target - self.wall
        picture = canvas.blank(extent=3.0)
        picture = canvas.segment(picture, (-3.0, 0.0), (3.0, 0.0), 0.03, canvas.LIGHT)
        picture = canvas.segment(picture, (0.0, -0.6), (0.0, 0.6), 0.1, canvas.RED)
        picture = canvas.ring(picture, (target, 0.0), 0.25, 0.06, canvas.GREEN)
        return canvas.disc(picture, (x, 0.0), 0.15, canvas.BLUE).rgb()

    def _in_terms_of_noise(self, mean: float, sigma: float) -> tuple[Polynomial, float]:
        """The parabola as a polynomial of ``eps``, and the ``eps`` that leads to the wall."""
        require_gaussian("Wall", mean, sigma)
        from_target = Polynomial([mean - self.target, sigma])
        return -(from_target**2), (self.wall - mean) / sigma


def jump_moments(
    smooth: Polynomial, jump: float, edge: float, score: Polynomial, slope: Polynomial
) -> ExactMoments:
    """Gradient and moments for the return ``f(eps) = smooth(eps) + jump 1[eps > edge]``.

    ``eps`` is a standard normal. The pathwise estimate is ``smooth' slope``, without the jump. So
    its mean is ``E[smooth S]`` by Stein's lemma, and its bias ``-jump E[S 1(eps > edge)]``.

    Args:
        smooth: the part of the return without the jump, a polynomial of ``eps``.
        jump: added where ``eps`` is above the edge.
        edge: the value of ``eps`` at which the return jumps.
        score: ``S``, the derivative of the log density by the parameter.
        slope: ``(du/dtheta) / sigma``, which turns a derivative by ``eps`` into one by the
            parameter.
    """
    pathwise = smooth.deriv() * slope
    squared = score**2
    return exact_moments(
        gradient=polynomial_mean(smooth * score) + jump * polynomial_mean(score, edge),
        pathwise_mean=polynomial_mean(pathwise),
        pathwise_square=polynomial_mean(pathwise**2),
        score_square=polynomial_mean(smooth**2 * squared)
        + polynomial_mean((2 * jump * smooth + jump**2) * squared, edge),
        product=polynomial_mean(smooth * squared) + jump * polynomial_mean(squared, edge),
        fisher=polynomial_mean(squared),
    )
