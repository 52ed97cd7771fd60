"""Where noise comes from: a generator, nowhere, or other noise."""

from collections.abc import Callable

import torch
from torch import Tensor

from pgtoolkit.policy import Policy


def noise_windows(
    policy: Policy, num_envs: int, generator: torch.Generator
) -> Callable[[int], Tensor]:
    """A function that draws the noise of ``T`` steps ``[T, N, A]``."""

    def draw(num_steps: int) -> Tensor:
        return policy.draw_noise(num_steps, num_envs, generator=generator)

    return draw


def zero_noise_windows(
    policy: Policy, num_envs: int, device: torch.device
) -> Callable[[int], Tensor]:
    """The same with zeros: every action is the distribution's mode."""

    def draw(num_steps: int) -> Tensor:
        return torch.zeros(num_steps, num_envs, policy.noise_size, device=device)

    return draw


def antithetic(noise: Tensor) -> Tensor:
    """``[num_samples, ...]`` to ``[2 num_samples, ...]``: all noise, then all with its sign turned.

    The mean of a pair's estimates is unbiased if the noise's law is symmetric about 0 (normal,
    logistic; not Gumbel). What is odd in the noise cancels: for a linear ``f`` the pathwise
    gradient by the mean has no variance left. What is even is only repeated, and then a pair is
    worth one sample. The pairs are independent, their halves are not: measure the variance of
    ``estimates.reshape(2, -1).mean(0)``.
    """
    return torch.cat([noise, -noise])
