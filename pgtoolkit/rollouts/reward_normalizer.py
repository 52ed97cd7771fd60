"""Normalisation of rewards by the running standard deviation of the discounted return."""

import dataclasses
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.networks.normalizer import Moments
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import entries, load_state_of, require, state_of, tensor

TARGET = 30.0
"""Standard deviation of the discounted return of normalised rewards. With 1, which is usual,
``ppo`` fails on the point mass, and with 60 it is slower on most tasks; ``docs/decisions.md`` has
the numbers. Common tasks have 1 to 500."""
CONSTANT = 2.0**-20
"""Standard deviation of the returns, as a share of their mean's size, up to which they count as
constant. What is left then are rounding errors of rewards, which are float32: eight units."""
STATE = ("running", "count", "mean", "scatter")


@final
class RewardNormalizer:
    """``30 r / std(G)``, with the running standard deviation of ``G_t = r_t + gamma G_{t-1}``.

    ``G`` is the discounted sum of an environment's rewards so far. It starts at 0 with every
    episode, and its variance is taken over all valid steps of all environments. Divided by a
    thirtieth of its standard deviation, rewards of any unit have returns of one size, for which
    learning rates, clips and initial weights are made. Nothing is subtracted, because a constant
    added to rewards changes what a policy with terminations should do, and nothing is clipped,
    because that would bias the gradient. ``G`` goes on from window to window. The same statistic is
    in Engstrom et al. (2020, "Implementation matters in deep policy gradients"), Gymnasium's
    ``NormalizeReward`` and Stable-Baselines3's ``VecNormalize``; these divide every step by the
    deviation up to that step.

    Here ``update`` takes in a whole window first, and all of its rewards are then divided by one
    number. The first window would have no scale otherwise. A positive factor that all rewards of a
    window share does not change the direction of any of its gradients, nor the ratio of two
    estimators' variances.

    The moments are float64, and no constant is added to them: rewards times a power of two are
    normalised to the same bits.

    Args:
        num_envs: ``N``.
        gamma: discount factor of the return.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self.gamma = gamma
        self.running = torch.zeros(num_envs, dtype=torch.float64)
        self.count, self.mean, self.scatter = torch.zeros(3, dtype=torch.float64).unbind()

    @torch.no_grad()
    def update(self, window: Window) -> None:
        """Adds ``G_t`` at the valid steps of a window, which follows the last one in time."""
        valid, done = window.valid.cpu(), window.done.cpu()
        reward = torch.where(valid, window.reward.detach().cpu().double(), 0.0)
        starts = torch.cat([torch.zeros_like(done[:1]), done[:-1]])
        if window.episode_start is not None:
            starts |= window.episode_start.cpu()
        found = running_returns(reward.numpy(), starts.numpy(), self.running.numpy(), self.gamma)
        returns = torch.from_numpy(found)
        self.running = torch.where(done[-1], 0.0, returns[-1])
        returns = returns[valid]
        if len(returns) == 0:
            return
        mean = returns.mean()
        new = Moments(len(returns), mean, (returns - mean).square().sum())
        merged = Moments(self.count, self.mean, self.scatter).merge(new)
        assert isinstance(merged.size, Tensor)
        self.count, self.mean, self.scatter = merged.size, merged.mean, merged.scatter

    @property
    def scale(self) -> Tensor:
        """The divisor, a float64 scalar: ``std(G) / 30``, or 1 where ``G`` is constant so far."""
        std = (self.scatter / self.count.clamp(min=1)).sqrt()
        return torch.where(std > CONSTANT * self.mean.abs(), std / TARGET, 1.0)

    def __call__(self, window: Window) -> Window:
        """The window with its rewards divided by :attr:`scale`; their graph is kept."""
        reward = window.reward.double() / float(self.scale)
        return dataclasses.replace(window, reward=reward.to(window.reward.dtype))

    def metrics(self) -> dict[str, Tensor]:
        """``{"train/reward_scale": ...}``, the divisor."""
        return {"train/reward_scale": self.scale}

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        sums = {name: tensor(getattr(self, name), low=0.0) for name in ("count", "scatter")}
        load_state_of(self, STATE, state, sums)


@final
class NoRewardNormalizer:
    """Leaves rewards in the environment's unit."""

    scale = torch.ones((), dtype=torch.float64)
    """The divisor, 1."""

    def update(self, window: Window) -> None:
        """Does nothing: there are no moments to update."""

    def __call__(self, window: Window) -> Window:
        return window

    def metrics(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing: there is no state."""
        require(state, entries({}))


def running_returns(
    reward: NDArray[np.float64],
    starts: NDArray[np.bool_],
    before: NDArray[np.float64],
    gamma: float,
) -> NDArray[np.float64]:
    """``G_t = r_t + gamma G_{t-1}``, ``G_t = r_t`` at the first step of an episode ``[T, N]``.

    Args:
        reward: ``[T, N]``, 0 on steps that are not valid.
        starts: ``[T, N]``, true at the first steps of episodes.
        before: ``[N]``, ``G`` of the step before the first one.
        gamma: discount factor.
    """
    found, factor = reward.copy(), np.where(starts, 0.0, gamma)
    for row, keep in zip(found, factor, strict=True):
        row += keep * before
        before = row
    return found
