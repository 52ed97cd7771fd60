"""A smooth reward with a jump at a wall: the pathwise gradient is biased, and does not know it."""

from typing import final

import numpy as np
import torch
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.analytic.exact import (
    ExactGradient,
    ExactMoments,
    exact_moments,
    polynomial_mean,
    require_finite_arguments,
    require_gaussian,
)
from pgtoolkit.envs.analytic.open_loop import (
    BlindState,
    indicator,
    nothing_to_see,
    start_at,
    unbounded_action,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.rendering import canvas as drawing


@final
class Wall(DifferentiableEnv[BlindState]):
    """One action towards a target behind a wall, whose passing is paid or fined all at once.

    ::

        r = -(u - target)^2 + jump 1[u > wall]

    The pathwise gradient sees the parabola and not the wall: with ``a = (wall - mean) / sigma`` it
    is off by exactly ``-jump phi(a) / sigma`` by the mean and ``-jump a phi(a) / sigma`` by sigma.
    With the defaults it climbs through the wall to the target, where the return is -12; the best
    return, -1/4, is before the wall, and the score function finds it.

    One step, then the episode terminates. Observation ``[N, 1]``: always 0, so the policy is blind,
    its action is ``u = mean + sigma eps``, and the closed forms below hold for it. ``gradient``
    says that the reward's derivative is approximate and the contact stiff: it is right at almost
    every action, and misses the jump.

    Args:
        target: where the parabola is highest.
        wall: where the reward jumps.
        jump: by how much, on passing the wall upwards.

    Raises:
        RequestError: an argument is not finite.
    """

    # Never reached: the episode terminates after one. Gymnasium's env checker takes a truncation in
    # the first step for a mistake.
    max_episode_steps = 2
    gradient = GradientInfo(reward="approximate", contacts="stiff")

    def __init__(self, target: float = 1.0, wall: float = 0.5, jump: float = -12.0) -> None:
        require_finite_arguments("Wall", target=target, wall=wall, jump=jump)
        self.target, self.wall, self.jump = float(target), float(wall), float(jump)
        self.observation_space, self.action_space = nothing_to_see(), unbounded_action()

    def initial(self, num_envs: int, generator: torch.Generator) -> BlindState:
        return start_at(0.0, num_envs, generator)

    def transition(self, state: BlindState, action: Tensor, noise: Tensor | None) -> BlindState:
        return BlindState(action, state.time + 1)

    def observation(self, state: BlindState) -> Tensor:
        return torch.zeros_like(state.position)

    def reward(self, state: BlindState, action: Tensor, next_state: BlindState) -> Tensor:
        u = next_state.position.squeeze(-1)
        return self.jump * indicator(u - self.wall) - (u - self.target).square()

    def terminal(self, state: BlindState) -> Tensor:
        return state.time >= 1

    def expected_return(self, mean: float, sigma: float) -> float:
        """The exact ``E[r] = -(mean - target)^2 - sigma^2 + jump Phi((mean - wall) / sigma)``.

        Raises:
            RequestError: mean or sigma is not that of a Gaussian.
        """
        smooth, edge = self._in_noise(mean, sigma)
        return polynomial_mean(smooth) + self.jump * polynomial_mean(Polynomial([1.0]), edge)

    def exact_gradient(self, mean: float, sigma: float) -> ExactGradient:
        """The exact gradient of :meth:`expected_return`, and the moments of both its estimates.

        Raises:
            RequestError: mean or sigma is not that of a Gaussian.
        """
        smooth, edge = self._in_noise(mean, sigma)
        by_mean = Polynomial([0.0, 1.0 / sigma]), Polynomial([1.0 / sigma])
        by_sigma = Polynomial([-1.0, 0.0, 1.0]) / sigma, Polynomial([0.0, 1.0 / sigma])
        return ExactGradient(
            mean=jump_moments(smooth, self.jump, edge, *by_mean),
            sigma=jump_moments(smooth, self.jump, edge, *by_sigma),
        )

    def render(self, state: BlindState, index: int) -> NDArray[np.uint8]:
        """The action on a line, the target as a ring, the wall as a red bar."""
        x, target = float(state.position[index, 0]) - self.wall, self.target - self.wall
        picture = drawing.canvas(extent=3.0)
        picture = drawing.segment(picture, (-3.0, 0.0), (3.0, 0.0), 0.03, drawing.FAINT)
        picture = drawing.segment(picture, (0.0, -0.6), (0.0, 0.6), 0.1, drawing.RED)
        picture = drawing.ring(picture, (target, 0.0), 0.25, 0.06, drawing.GREEN)
        return drawing.disc(picture, (x, 0.0), 0.15, drawing.BLUE).rgb()

    def _in_noise(self, mean: float, sigma: float) -> tuple[Polynomial, float]:
        """The parabola as a polynomial of ``eps``, and the ``eps`` at which the wall stands."""
        require_gaussian("Wall", mean, sigma)
        away = Polynomial([mean - self.target, sigma])
        return -(away**2), (self.wall - mean) / sigma


def jump_moments(
    smooth: Polynomial, jump: float, edge: float, score: Polynomial, slope: Polynomial
) -> ExactMoments:
    """Of ``f(eps) = smooth(eps) + jump 1[eps > edge]``, all polynomials of a standard normal.

    The pathwise estimate is ``smooth' slope``: the jump is not in it. So its mean is ``E[smooth
    S]`` by Stein's lemma, and its bias ``-jump E[S 1(eps > edge)]``.

    Args:
        smooth: the part of the return without the jump.
        jump: what is added beyond the edge.
        edge: where.
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
