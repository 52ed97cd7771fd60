"""A reward that jumps: the pathwise gradient is 0 without any variance, and wrong."""

import math
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs import drawing
from pgtoolkit.envs.blind import (
    BlindState,
    indicator,
    nothing_to_see,
    start_at,
    unbounded_action,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.exact import (
    ExactGradient,
    Phi,
    require_finite_arguments,
    require_gaussian,
)
from pgtoolkit.envs.step_theory import step_moments
from pgtoolkit.errors import RequestError


@final
class Step(DifferentiableEnv[BlindState]):
    """One action, paid 1 beyond a threshold and 0 before it, or smoothly from 0 to 1.

    ::

        r = 1[u > threshold]                      smoothing 0
        r = Phi((u - threshold) / smoothing)      smoothing > 0

    Without smoothing the reward is flat wherever it has a derivative. The pathwise estimate is 0 on
    every trajectory, with a measured variance of 0: it looks perfect and carries no information.
    With a little smoothing it is unbiased again, and its variance grows as 1 / smoothing; a batch
    that has no action near the threshold still measures next to none.

    One step, then the episode terminates. Observation ``[N, 1]``: always 0, so the policy is blind,
    its action is ``u = mean + sigma eps``, and the closed forms below hold for it. Without
    smoothing ``gradient`` says that the reward's derivative is approximate and the contact stiff:
    it is right at almost every action, and misses the jump.

    Args:
        threshold: where the reward rises.
        smoothing: the standard deviation of the rise, in units of the action; 0 is a jump.

    Raises:
        RequestError: an argument is not finite, or the smoothing is negative.
    """

    # Never reached: the episode terminates after one. Gymnasium's env checker takes a truncation in
    # the first step for a mistake.
    max_episode_steps = 2

    def __init__(self, threshold: float = 0.0, smoothing: float = 0.0) -> None:
        require_finite_arguments("Step", threshold=threshold, smoothing=smoothing)
        if smoothing < 0:
            raise RequestError(f"Step's smoothing is {smoothing}: it must be 0 or more")
        self.threshold, self.smoothing = float(threshold), float(smoothing)
        self.observation_space, self.action_space = nothing_to_see(), unbounded_action()
        if self.smoothing > 0:
            self.gradient = GradientInfo(contacts="smooth")
        else:
            self.gradient = GradientInfo(reward="approximate", contacts="stiff")

    def initial(self, num_envs: int, generator: torch.Generator) -> BlindState:
        return start_at(0.0, num_envs, generator)

    def transition(self, state: BlindState, action: Tensor, noise: Tensor | None) -> BlindState:
        return BlindState(action, state.time + 1)

    def observation(self, state: BlindState) -> Tensor:
        return torch.zeros_like(state.position)

    def reward(self, state: BlindState, action: Tensor, next_state: BlindState) -> Tensor:
        beyond = next_state.position.squeeze(-1) - self.threshold
        if self.smoothing == 0:
            return indicator(beyond)
        smooth: Tensor = torch.special.ndtr(beyond / self.smoothing)
        return smooth

    def terminal(self, state: BlindState) -> Tensor:
        return state.time >= 1

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

    def render(self, state: BlindState, index: int) -> NDArray[np.uint8]:
        """The action on a line that is green where it is paid."""
        x = float(state.position[index, 0]) - self.threshold
        picture = drawing.canvas(extent=3.0)
        picture = drawing.segment(picture, (-3.0, 0.0), (0.0, 0.0), 0.06, drawing.FAINT)
        picture = drawing.segment(picture, (0.0, 0.0), (3.0, 0.0), 0.06, drawing.GREEN)
        picture = drawing.segment(picture, (0.0, -0.3), (0.0, 0.3), 0.05, drawing.INK)
        return drawing.disc(picture, (x, 0.0), 0.15, drawing.BLUE).rgb()
