"""Problems on which the right verdict of ``pgtoolkit variance`` is known exactly.

The policy is ``u = mean + sigma eps``, whatever the observation, and gradients are by the mean and
by log sigma, as the policy's parameters are.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import final

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.analytic.chaos import Chaos
from pgtoolkit.envs.analytic.exact import ExactGradient
from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.analytic.step import Step
from pgtoolkit.envs.analytic.wall import Wall
from pgtoolkit.envs.differentiable import DifferentiableEnv

TIE_FREQUENCY = 1.2559633833
"""The frequency k at which both estimators of ``cos(k (u - 1))`` have the same variance, for a mean
of 0 and a sigma of 1."""


@final
@dataclasses.dataclass(frozen=True)
class Problem:
    """An environment, a policy and what is true of them."""

    env: DifferentiableEnv
    horizon: int
    mean: float
    sigma: float
    ratio: float
    """Pathwise variance over the score function's; NaN where it does not decide, because pathwise
    is biased or there is no gradient."""
    bias_share: float
    """Squared bias of pathwise over its signal; infinite if it is 0 and wrong."""


class OneAction(DifferentiableEnv[Tensor]):
    """One action; the observation is 0. The reward is for subclasses."""

    observation_space = Box(-1.0, 1.0, (1,))
    action_space = Box(-math.inf, math.inf, (1,))
    max_episode_steps = 1

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 1, device=generator.device)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return action

    def observation(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state)

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)


@final
class Tie(OneAction):
    """``r = cos(k (u - 1))``: the frequency sets the ratio of the variances."""

    def __init__(self, frequency: float) -> None:
        self.frequency = frequency

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.cos(self.frequency * (action[:, 0] - 1))


@final
class Quadratic(OneAction):
    """``r = -(u - 3)^2``."""

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -((action[:, 0] - 3) ** 2)


@final
class NoEffect(OneAction):
    """The reward is noise, and does not depend on the action."""

    noise_shape = (1,)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None, "declared by noise_shape"
        return noise + 0 * action

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return next_state[:, 0]


@final
class EarlyEnd(OneAction):
    """Two steps with reward ``3 - u^2``, but the episode ends if the first action exceeds 1."""

    max_episode_steps = 2

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return 3 - action[:, 0] ** 2

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0] > 1


def problems() -> dict[str, Callable[[], Problem]]:
    """Problems by name; a problem is made when it is called."""
    return {
        "Wall, the true gradient has the other sign": lambda: wall(0.6, 0.5, -10.744, -1.5),
        "Wall, the true gradient is about 0": lambda: wall(0.5, 0.3, -1.539, -1.0),
        "Wall, far away and without effect": lambda: wall(1.0, 2.0, -1.0, -1.5),
        "Wall, a bias that hardly matters": lambda: wall(1.0, 1.0, -1.2, -0.5),
        "Wall, a bias that just matters": lambda: wall(1.0, 1.0, -5.3, -0.5),
        "Step": step,
        "Step, smooth over 0.1": smooth_step,
        "Tie": lambda: tie(1.0),
        "Tie, k 3 % lower": lambda: tie(0.97),
        "Tie, k 3 % higher": lambda: tie(1.03),
        "Chaos, H = 3": lambda: chaos(3),
        "Chaos, H = 20": lambda: chaos(20),
        "LQG, H = 5": lqg,
        "Quadratic": quadratic,
        "NoEffect": lambda: Problem(NoEffect(), 1, 0.0, 1.0, math.nan, 0.0),
        "EarlyEnd": early_end,
    }


def variance_ratio(exact: ExactGradient, sigma: float, expected: float) -> float:
    """Pathwise variance over the score function's with the baseline E r, by mean and log sigma."""
    by_mean, by_sigma = exact.mean, exact.sigma
    pathwise = by_mean.pathwise_variance + sigma**2 * by_sigma.pathwise_variance
    score = by_mean.baseline_variance(expected) + sigma**2 * by_sigma.baseline_variance(expected)
    return pathwise / score


def wall(target: float, place: float, jump: float, log_sigma: float) -> Problem:
    """Pathwise has the gradient of ``-(u - target)^2`` alone: ``2 target`` and ``-2 sigma^2``."""
    env, sigma = Wall(target=target, wall=place, jump=jump), math.exp(log_sigma)
    exact = env.exact_gradient(0.0, sigma)
    truth = np.array([exact.mean.gradient, sigma * exact.sigma.gradient])
    pathwise = np.array([2 * target, -2 * sigma**2])
    share = float(((truth - pathwise) ** 2).sum() / (pathwise**2).sum())
    ratio = variance_ratio(exact, sigma, env.expected_return(0.0, sigma))
    return Problem(env, 1, 0.0, sigma, ratio, share)


def step() -> Problem:
    return Problem(Step(), 1, 0.0, 1.0, math.nan, math.inf)


def smooth_step() -> Problem:
    """Without bias, but only actions near the threshold have a pathwise gradient."""
    env = Step(smoothing=0.1)
    ratio = variance_ratio(env.exact_gradient(0.0, 1.0), 1.0, env.expected_return(0.0, 1.0))
    return Problem(env, 1, 0.0, 1.0, ratio, 0.0)


def tie(factor: float) -> Problem:
    """The ratio by Gauss-Hermite quadrature, with the baseline E r."""
    k = factor * TIE_FREQUENCY
    x, w = np.polynomial.hermite_e.hermegauss(80)
    w = w / w.sum()
    f, slope = np.cos(k * (x - 1)), -k * np.sin(k * (x - 1))
    samples = [[(f - w @ f) * x, (f - w @ f) * (x**2 - 1)], [slope, slope * x]]
    score, pathwise = (sum(w @ g**2 - (w @ g) ** 2 for g in pair) for pair in samples)
    return Problem(Tie(k), 1, 0.0, 1.0, float(pathwise / score), 0.0)


def chaos(horizon: int) -> Problem:
    env = Chaos(horizon=horizon)
    exact = env.exact_gradient(0.0, 0.1)
    ratio = variance_ratio(exact, 0.1, env.expected_return(0.0, 0.1))
    return Problem(env, horizon, 0.0, 0.1, ratio, 0.0)


def lqg() -> Problem:
    """A gain of 0, and the score function with its least variance, the exact value as baseline."""
    env = LQG(horizon=5)
    pathwise, score = (
        float(by.K) + float(by.k) + 0.3**2 * float(by.sigma)
        for name in ("pathwise", "reward_to_go_value")
        for by in [env.gradient_moments(0.0, 0.2, 0.3, name).variance]
    )
    return Problem(env, 5, 0.2, 0.3, pathwise / score, 0.0)


def quadratic() -> Problem:
    """With a mean of 0 and a sigma of 1: pathwise 4 + 44, the score function 82 + 416.

    With the baseline the reward is ``-w``, ``w = eps^2 - 6 eps - 1``. By the mean and by log sigma,
    pathwise is ``-2 (eps - 3)`` and ``-2 (eps^2 - 3 eps)``, and the score function ``-w eps`` and
    ``-w (eps^2 - 1)``.
    """
    return Problem(Quadratic(), 1, 0.0, 1.0, (4 + 44) / (82 + 416), 0.0)


def early_end() -> Problem:
    """Pathwise misses how the actions move the probability ``P`` of a second step.

    ``J = R + P R`` with ``R = E r = 3 - mean^2 - sigma^2`` and ``P = Phi(z)``, ``z = (1 - mean) /
    sigma``. The bias is ``R dP``: ``-R phi(z) / sigma`` by the mean and ``-R phi(z) z`` by log
    sigma. Pathwise has ``(1 + P) dR``.
    """
    mean, sigma = 0.8, 0.3
    z = (1 - mean) / sigma
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    probability = 0.5 * math.erfc(-z / math.sqrt(2))
    reward = 3 - mean**2 - sigma**2
    bias = (reward * density) ** 2 * (1 / sigma**2 + z**2)
    pathwise = (1 + probability) ** 2 * (4 * mean**2 + 4 * sigma**4)
    return Problem(EarlyEnd(), 2, mean, sigma, math.nan, bias / pathwise)
